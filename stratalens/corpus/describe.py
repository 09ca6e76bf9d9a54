"""What a run says of its text, and what the text does not allow."""

from stratalens.config.options import RunConfig
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.populations import Side, side_name
from stratalens.corpus.survey import Survey


def describe_files(domain: str, corpus: Corpus) -> list[str]:
    """A line a side: how many files, and what a document is in them."""
    lines = []
    for side, files in zip(Side, corpus.files, strict=True):
        units = sorted({file.unit for file in files})
        shown = str(files[0].path) if len(files) == 1 else f"{len(files)} files"
        lines.append(f"{side_name(domain, side).capitalize()} text: {shown} (a document is a {' or a '.join(units)})")
    return lines


def describe_survey(domain: str, survey: Survey) -> str:
    """One line: documents a side, how they are split, what was left out."""
    parts = []
    for side, counts in zip(Side, survey.counts, strict=True):
        halves = f"{counts.discovery_documents} discovery, {counts.confirmation_documents} confirmation"
        out = {
            "empty": counts.empty,
            "too short": counts.too_short,
            "duplicate": counts.duplicates,
            "beyond --max_documents": counts.beyond_max_documents,
        }
        left = ", ".join(f"{number} {reason}" for reason, number in out.items() if number)
        split = f" ({halves})" if survey.split else ""
        parts.append(f"{counts.documents} {side_name(domain, side)}{split}" + (f", skipped {left}" if left else ""))
    return "Documents: " + "; ".join(parts)


def corpus_warnings(config: RunConfig, survey: Survey) -> list[str]:
    """What the documents at hand do not allow."""
    found = []
    if common := survey.counts[0].on_both_sides:
        found.append(f"{common} texts stand on both sides and were dropped from both; mend the data if you can")
    if not survey.split:
        found.append(
            "fewer than 10 documents a side in a half: nothing was held back, features were selected and estimated on "
            "the same documents, estimates flatter them, and `confirmed` stays empty"
        )
    return found
