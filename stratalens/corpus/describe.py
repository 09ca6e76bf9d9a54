"""Messages about the text of a run: which files, how many documents, and warnings about them."""

from typing import NamedTuple

from stratalens.config.options import RunConfig
from stratalens.corpus.comparability import comparability_warnings
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.likeness import MAX_AUROC, Likeness, likeness
from stratalens.corpus.populations import Half, Side, side_name
from stratalens.corpus.side_rows import SideCounts
from stratalens.corpus.strata import MIN_STRATUM_DOCUMENTS
from stratalens.corpus.survey import Survey

MIN_COVERED_DOCUMENTS = 40
"""Documents of a side that the half that confirms needs for intervals that cover at least 93%."""
COVERED_BY_FEWER = 0.92
"""What intervals of specialization cover with 10 to 20 documents and the worst `--rank_by`: `make bench-validity`."""
FALSE_OF_FEWER = 0.07
"""Runs that confirm a feature with 20 documents though there is none, by the worst `--rank_by`; nominal are 0.05."""


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
            "without a kind": counts.without_kind,
            "of kinds on one side only": counts.kind_on_one_side,
            "of kinds with too few": counts.too_few_of_kind,
        }
        skipped = ", ".join(f"{number} {reason}" for reason, number in skipped_rows.items() if number)
        split = f" ({halves})" if survey.split else ""
        sides.append(
            f"{counts.documents} {side_name(domain, side)}{split}" + (f", skipped {skipped}" if skipped else "")
        )
    kinds = survey.populations.strata
    within = f"; compared within {len(kinds)} kinds: {', '.join(kinds)}" if len(kinds) > 1 else ""
    return "Documents: " + "; ".join(sides) + within


class TextFindings(NamedTuple):
    """What a reader must know about the text of a run."""

    likeness: Likeness | None
    """Whether the two sides are of the same kinds of text; None with too few documents."""
    warnings: tuple[str, ...]


def examine_text(config: RunConfig, corpus: Corpus, survey: Survey, *, halves: bool = True) -> TextFindings:
    """Look for files that are not read, sides that differ in form, and too few documents to hold any back.

    Args:
        config: options of the run.
        corpus: its files.
        survey: what was decided of their rows.
        halves: whether documents were to be held back.
    """
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
    warnings += _kind_warnings(survey, names, len(Half) * MIN_STRATUM_DOCUMENTS if halves else MIN_STRATUM_DOCUMENTS)
    warnings += comparability_warnings(survey.samples, names, quote=not config.no_examples)
    kinds = [survey.strata_of(sample) for sample in survey.samples]
    found = likeness(survey.samples, (kinds[0], kinds[1]))
    if found is not None and found.differs:
        warnings.append(
            f"the sides are of different kinds of text: a classifier that sees function words, punctuation, length and "
            f"digits alone tells them apart with AUROC {found.auroc:.2f} (above {MAX_AUROC}), so features of the kind "
            "will seem to be features of the domain; compare like with like, see docs/own-domain.md"
        )
    if halves and not survey.split:
        warnings.append(
            "fewer than 10 documents per side in a half: no documents were held back; features were selected and "
            "estimated on the same documents, so the estimates are too favourable, and `confirmed` stays empty"
        )
    if halves and survey.split:
        warnings += coverage_warnings(survey.counts, names)
    return TextFindings(found, tuple(warnings))


def coverage_warnings(counts: tuple[SideCounts, SideCounts], names: tuple[str, str]) -> list[str]:
    """A warning where so few documents of a side confirm that intervals cover less than 93%."""
    side = min(Side, key=lambda own: counts[own].confirmation_documents)
    documents = counts[side].confirmation_documents
    if documents >= MIN_COVERED_DOCUMENTS:
        return []
    return [
        f"only {documents} {names[side]} documents confirm the features: with fewer than {MIN_COVERED_DOCUMENTS} a "
        f"side intervals of specialization cover about {COVERED_BY_FEWER:.0%} instead of 95%, and the false discovery "
        f"rate is about {FALSE_OF_FEWER:.0%} instead of 5%, see docs/method.md"
    ]


def _kind_warnings(survey: Survey, names: tuple[str, str], least: int) -> list[str]:
    """Warnings about documents that are left out because of their kinds, or whose kinds are ignored.

    `least` documents of a kind are needed on each side.
    """
    if survey.kinds_ignored:
        return [
            f"fewer than two kinds of text have {least} documents on each side, so kinds are ignored: documents are "
            "compared with those of other kinds"
        ]
    warnings = []
    for name, counts in zip(names, survey.counts, strict=True):
        left_out = {
            "have no kind": counts.without_kind,
            "are of a kind that the other side lacks": counts.kind_on_one_side,
            f"are of a kind with fewer than {least} documents on a side": counts.too_few_of_kind,
        }
        reasons = [f"{count:,} {reason}" for reason, count in left_out.items() if count]
        if reasons:
            warnings.append(f"{name} documents left out: {'; '.join(reasons)}")
    return warnings
