"""Messages about the text of a run: which files, how many documents, and warnings about them."""

from stratalens.config.options import RunConfig
from stratalens.corpus.comparability import comparability_warnings
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.populations import Side, side_name
from stratalens.corpus.survey import Survey


def describe_files(domain: str, corpus: Corpus) -> list[str]:
    """One line per side: how many files it has, and what a document is in them."""
    lines = []
    for side, files in zip(Side, corpus.files, strict=True):
        units = sorted({file.unit for file in files})
        names = str(files[0].path) if len(files) == 1 else f"{len(files)} files"
        lines.append(f"{side_name(domain, side).capitalize()} text: {names} (a document is a {' or a '.join(units)})")
    return lines


def describe_survey(domain: str, survey: Survey) -> str:
    """One line: documents on each side, how they are split, and how many rows were skipped and why."""
    sides = []
    for side, counts in zip(Side, survey.counts, strict=True):
        halves = f"{counts.discovery_documents} discovery, {counts.confirmation_documents} confirmation"
        skipped_rows = {
            "empty": counts.empty,
            "too short": counts.too_short,
            "bad": counts.bad_rows,
            "duplicate": counts.duplicates,
            "near duplicates": counts.near_duplicates,
            "beyond --max_documents": counts.beyond_max_documents,
        }
        skipped = ", ".join(f"{number} {reason}" for reason, number in skipped_rows.items() if number)
        split = f" ({halves})" if survey.split else ""
        sides.append(
            f"{counts.documents} {side_name(domain, side)}{split}" + (f", skipped {skipped}" if skipped else "")
        )
    return "Documents: " + "; ".join(sides)


def corpus_warnings(config: RunConfig, corpus: Corpus, survey: Survey) -> list[str]:
    """Warnings about files that are not read, about texts, and about too few documents to hold any back."""
    names = side_name(config.domain, Side.DOMAIN), side_name(config.domain, Side.GENERAL)
    warnings = list(corpus.warnings)
    for name, own in zip(names, survey.warnings, strict=True):
        warnings += [f"{name} text: {warning}" for warning in own]
    if common := survey.counts[0].on_both_sides:
        warnings.append(f"{common} texts are on both sides and were dropped from both; fix the data if you can")
    near = [counts.near_duplicates_on_both_sides for counts in survey.counts]
    if any(near):
        warnings.append(
            f"{near[0]:,} {names[0]} and {near[1]:,} {names[1]} documents say nearly the same and were dropped from "
            "both sides; fix the data if you can"
        )
    for name, counts in zip(names, survey.counts, strict=True):
        if counts.near_duplicates:
            warnings.append(
                f"{counts.near_duplicates:,} {name} documents say nearly the same as another (numbers apart) and were "
                "dropped; --keep_near_duplicates keeps them"
            )
    warnings += comparability_warnings(survey.samples, names, quote=not config.no_examples)
    if not survey.split:
        warnings.append(
            "fewer than 10 documents per side in a half: no documents were held back; features were selected and "
            "estimated on the same documents, so the estimates are too favourable, and `confirmed` stays empty"
        )
    return warnings
