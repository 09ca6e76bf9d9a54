"""What `run.json` says of the token-level codes that a result keeps."""

from collections.abc import Mapping
from pathlib import Path

from stratalens.harvest.codes_file import CodesFile
from stratalens.hookpoint import Hookpoint
from stratalens.report.record_part import RecordPart


class CodesRecord(RecordPart):
    """The token-level codes of one hookpoint."""

    documents: int
    """All of whose passages are kept."""
    passages: int
    bytes: int


def codes_record(codes: Mapping[Hookpoint, Path]) -> dict[str, CodesRecord]:
    """Hookpoint -> what is kept of it; `codes` holds the files."""
    kept = {}
    for hookpoint, path in codes.items():
        with CodesFile(path) as file:
            places = file.places().to_pandas()
            documents = places["document"][places["whole"]].nunique()
            kept[str(hookpoint)] = CodesRecord(documents=documents, passages=len(places), bytes=file.size)
    return kept
