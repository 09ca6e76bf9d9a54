"""Find the files that paths, addresses, directories, globs and `hf:` datasets name, in a stable order."""

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

    With `text_unit` `auto`, each line of a plain-text file is a document where the file itself is named, and the whole
    file is one where its directory is named. `hf:DATASET_ID[:CONFIG]:SPLIT:COLUMN` is a streamed dataset.

    Args:
        paths: what to look for; a file that is named twice is listed once.
        text_unit: what one document of a plain-text file is: `line`, `file` or `auto`.

    Raises:
        CorpusError: a path does not exist, holds no readable file, or names a file of an unknown type.
    """
    text_files: dict[Path | Url | DatasetSplit, TextFile] = {}
    for path in paths:
        if is_dataset(path):
            split = parse_dataset(str(path))
            text_files[split] = TextFile(split, read_dataset, "row")
            continue
        found = find_url(str(path)) if is_url(path) else _find_local(Path(path).expanduser())
        files = [file for file in found.files if reader_of(file)] if found.in_directory else found.files
        if not files:
            printed_path = redacted(str(path))
            raise CorpusError(
                f"{printed_path}: no {READABLE_KINDS} file in this directory"
                if found.in_directory
                else f"{printed_path}: no such file, directory or glob"
            )
        for file in files:
            key = file.resolve() if isinstance(file, Path) else file
            if not (found.in_directory and key in text_files):  # a file that is also named itself keeps its text unit
                text_files[key] = _text_file(file, text_unit, whole=found.in_directory)
    return list(text_files.values())


def _find_local(path: Path) -> FoundFiles:
    if path.is_dir():
        return FoundFiles(sorted(p for p in path.rglob("*") if not _hidden(p, path) and p.is_file()), in_directory=True)
    matches = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    return FoundFiles([match for match in matches if match.is_file()], in_directory=False)


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _text_file(path: Path | Url, text_unit: str, whole: bool) -> TextFile:
    reader = reader_of(path)
    if reader is None:
        raise CorpusError(f"{path}: unknown kind of file; expected {READABLE_KINDS}")
    if reader is not read_text_file:
        return TextFile(path, reader, "row")
    return TextFile(path, reader, text_unit if text_unit != "auto" else ("file" if whole else "line"))
