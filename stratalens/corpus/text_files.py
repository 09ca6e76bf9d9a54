"""Find the files that paths, addresses, directories, globs and `hf:` datasets name, in a stable order."""

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import cast

from stratalens.corpus.addresses import is_url, require_complete
from stratalens.corpus.hub_datasets import DatasetSplit, is_dataset, parse_dataset
from stratalens.corpus.left_out import (
    HIDDEN,
    LINKED_DIRECTORIES,
    LINKS_OUTSIDE,
    NOT_REGULAR,
    RESULTS,
    describe_left_out,
    without_results,
)
from stratalens.corpus.reading.formats import (
    DATASET,
    PLAIN_TEXT,
    READABLE_KINDS,
    TextFile,
    format_of,
)
from stratalens.corpus.reading.text_options import DEFAULTS, TextOptions
from stratalens.corpus.remote import (
    FoundFiles,
    Url,
    file_at,
    find_url,
)
from stratalens.errors import CorpusError
from stratalens.files.locations import user_path
from stratalens.files.redaction import redacted

NOTHING_THERE = "no such file, directory or glob"


def find_files(
    paths: Sequence[str | Path],
    options: TextOptions = DEFAULTS,
    output_dir: Path | None = None,
    warn: Callable[[str], None] = lambda _message: None,
) -> list[TextFile]:
    """List the readable files under paths, addresses, directories and globs, in a stable order.

    With `text_unit` `auto`, each line of a plain-text file is a document where the file itself is named, and the whole
    file is one where its directory is named. `hf:DATASET_ID[:CONFIG]:SPLIT:COLUMN` is a streamed dataset.

    Links in a directory that point out of it are not followed: whoever may write there would choose what else is read.

    Args:
        paths: what to look for; a file that is named twice is listed once.
        options: how the files are read.
        output_dir: where the run writes; the files of a result in it are not read.
        warn: called with what is in a directory and is not read, one line for each path.

    Raises:
        CorpusError: a path does not exist, holds no readable file, or names a file of an unknown type.
    """
    text_files: dict[Path | Url | DatasetSplit, TextFile] = {}
    for path in paths:
        require_complete(str(path))
        if is_dataset(path):
            split = parse_dataset(str(path))
            text_files[split] = TextFile(split, DATASET, "row", replace(options, text_column=(split.column,)))
            continue
        found = without_results(_find(path), output_dir)
        files = [file for file in found.files if format_of(file)] if found.in_directory else found.files
        told = describe_left_out(found)
        if not files:
            missing = f"no {READABLE_KINDS} file in this directory" if found.in_directory else NOTHING_THERE
            reasons = told if RESULTS in found.left_out and not found.in_directory else [missing, *told]
            raise CorpusError(f"{redacted(str(path))}: {'; '.join(reasons)}")
        if told:
            warn(f"{redacted(str(path))}: {'; '.join(told)}")
        for file in files:
            key = file.resolve() if isinstance(file, Path) else file
            if not (found.in_directory and key in text_files):  # a file that is also named itself keeps its text unit
                text_files[key] = _text_file(file, options, whole=found.in_directory)
    return list(text_files.values())


def _find(path: str | Path) -> FoundFiles:
    if str(path).startswith("file://"):
        return _find_local(cast(Path, file_at(str(path))))
    return find_url(str(path)) if is_url(path) else _find_local(user_path(str(path)))


def _find_local(path: Path) -> FoundFiles:
    if path.is_dir():
        return _inside(path, sorted(path.rglob("*")), in_directory=True)
    if "**" in path.parts and not path.is_file():
        return _find_at_any_depth(path)
    if path.exists():  # also what is no regular file: its reader says so
        return FoundFiles([path], in_directory=False)
    return FoundFiles([match for match in sorted(_matches(path)) if match.is_file()], in_directory=False)


def _matches(pattern: Path) -> list[Path]:
    """Find the matches of a glob without `**`; a folder is entered once, however many names it has.

    Links, such as those in `/proc`, may give it as many names as there are ways round in circles.
    """
    root, parts = _split_at_wildcard(pattern)
    found = [root]
    for part in parts:
        folders = {os.path.realpath(folder): folder for folder in sorted(found)}.values()
        found = [folder / name for folder in folders for name in glob.glob(part, root_dir=folder)]
    return found


def _split_at_wildcard(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """Split a glob into the folder before its first wildcard, and the parts from there on.

    Raises:
        CorpusError: it goes up again after a wildcard, which gives one folder many names.
    """
    root = Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    parts = pattern.relative_to(root).parts
    if ".." in parts:
        raise CorpusError(f"{pattern}: `..` stands after a wildcard; write the pattern without it")
    return root, parts


def _find_at_any_depth(pattern: Path) -> FoundFiles:
    """Find the matches of a glob with `**`, which enters no link: `glob` goes round and round in a circle of links."""
    root, parts = _split_at_wildcard(pattern)
    parts = [part if part == "**" else part.replace("**", "*") for part in parts]
    matches = root.glob("/".join([*parts, "*"] if parts[-1] == "**" else parts))
    folders_elsewhere = (path for path in root.rglob("*") if path.is_symlink() and path.is_dir())
    found = {path for path in (*matches, *folders_elsewhere) if _hidden(path, root) <= _hidden(pattern, root)}
    return _inside(root, sorted(found), in_directory=False)


def _inside(root: Path, found: Sequence[Path], in_directory: bool) -> FoundFiles:
    """Keep the files that lie inside a directory once links are followed, and sort out what is not read."""
    real_root = os.path.realpath(root)
    files: list[Path] = []
    left_out: dict[str, list[Path]] = {}
    for path in found:
        if in_directory and _hidden(path, root):
            if format_of(path) and path.is_file() and not path.is_symlink():
                left_out.setdefault(HIDDEN, []).append(path)
        elif not Path(os.path.realpath(path)).is_relative_to(real_root):
            if path.is_dir() or format_of(path):
                left_out.setdefault(LINKS_OUTSIDE, []).append(path)
        elif path.is_symlink() and path.is_dir():  # its files are read where they are, if that is not hidden
            if _hidden(Path(os.path.realpath(path)), Path(real_root)):
                left_out.setdefault(LINKED_DIRECTORIES, []).append(path)
        elif path.is_file():
            files.append(path)
        elif not path.is_dir() and format_of(path):
            left_out.setdefault(NOT_REGULAR, []).append(path)
    return FoundFiles(files, in_directory, left_out)


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _text_file(path: Path | Url, options: TextOptions, whole: bool) -> TextFile:
    found = format_of(path)
    if found is None:
        raise CorpusError(f"{path}: unknown kind of file; expected {READABLE_KINDS}")
    unit = found.unit
    if found is PLAIN_TEXT:
        unit = options.text_unit if options.text_unit != "auto" else ("file" if whole else "line")
    return TextFile(path, found, unit, options)
