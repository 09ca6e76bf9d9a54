"""Which files to read: what a path, an address, a directory or a glob stands for, in a stable order."""

import glob
from collections.abc import Sequence
from pathlib import Path

from stratalens.corpus.hub_datasets import DatasetSplit, is_dataset, parse_dataset
from stratalens.corpus.readers import (
    READABLE_KINDS,
    TextFile,
    read_dataset,
    read_text_file,
    reader_of,
)
from stratalens.corpus.remote import (
    FoundFiles,
    Url,
    find_url,
    is_url,
)
from stratalens.errors import CorpusError
from stratalens.files.redaction import redacted


def find_files(paths: Sequence[str | Path], text_unit: str = "auto") -> list[TextFile]:
    """List the readable files under paths, addresses, directories and globs, in a stable order.

    A plain-text file named itself is read by lines, one inside a directory as a whole, unless `text_unit` says
    `line` or `file`. `hf:DATASET_ID[:CONFIG]:SPLIT:COLUMN` is a streamed dataset.

    Raises:
        CorpusError: nothing there, nothing readable there, or a file of an unknown kind was named.
    """
    found: dict[Path | Url | DatasetSplit, TextFile] = {}
    for given in paths:
        if is_dataset(given):
            split = parse_dataset(str(given))
            found[split] = TextFile(split, read_dataset, "row")
            continue
        there = find_url(str(given)) if is_url(given) else _find_local(Path(given).expanduser())
        files = [file for file in there.files if reader_of(file)] if there.inside else there.files
        if not files:
            shown = redacted(str(given))
            raise CorpusError(
                f"{shown}: no {READABLE_KINDS} file in this directory"
                if there.inside
                else f"{shown}: no such file, directory or glob"
            )
        for file in files:
            key = file.resolve() if isinstance(file, Path) else file
            if not (there.inside and key in found):  # a file that is named itself as well keeps that reading
                found[key] = _text_file(file, text_unit, whole=there.inside)
    return list(found.values())


def _find_local(path: Path) -> FoundFiles:
    if path.is_dir():
        return FoundFiles(sorted(p for p in path.rglob("*") if not _hidden(p, path) and p.is_file()), inside=True)
    matches = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    return FoundFiles([match for match in matches if match.is_file()], inside=False)


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _text_file(path: Path | Url, text_unit: str, whole: bool) -> TextFile:
    reader = reader_of(path)
    if reader is None:
        raise CorpusError(f"{path}: unknown kind of file; expected {READABLE_KINDS}")
    if reader is not read_text_file:
        return TextFile(path, reader, "row")
    return TextFile(path, reader, text_unit if text_unit != "auto" else ("file" if whole else "line"))
