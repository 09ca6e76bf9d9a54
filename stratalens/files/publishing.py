"""A new result takes the place of an earlier one: completely or not at all, and no file of the user's own is lost."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from stratalens.errors import OutputError
from stratalens.files.own_folders import refused, remove_folder, require_owner, user_of_new_files
from stratalens.files.plain_yaml import MAX_FILE_BYTES
from stratalens.files.record import recorded_names
from stratalens.files.result_names import (
    COMPLETE_FOLDER,
    RECORD_FILE,
    RESULT_FOLDERS,
    WORK_FOLDER,
)


def mark_complete(staging: Path, output_dir: Path, *, overwrite: bool) -> None:
    """Mark the staged files as complete: if this run is stopped from here on, the next one publishes them.

    Args:
        staging: all files of the new result; it is renamed.
        output_dir: where they will be moved.
        overwrite: whether they may replace files that no record lists.

    Raises:
        OutputError: such a file is in the way.
    """
    names = list(_names_below(staging))
    _refuse_files_of_the_user(output_dir, names, overwrite)
    for name in names:
        with (staging / name).open("rb") as stream:
            os.fsync(stream.fileno())
    staging.rename(staging.with_name(COMPLETE_FOLDER))


def publish_complete(output_dir: Path, *, overwrite: bool, of_this_run: bool = False) -> None:
    """Move complete files into the output directory, if there are any; may be repeated after an interruption.

    The record is moved last, so that every file that a record lists is there. Of the earlier result, files that the new
    record does not list are removed.

    Args:
        output_dir: the output directory.
        overwrite: whether they may replace files that no record lists.
        of_this_run: whether this process wrote them; their record is then read whatever its size.

    Raises:
        OutputError: their record does not list them, or a file that no record lists is in the way.
    """
    complete = output_dir / WORK_FOLDER / COMPLETE_FOLDER
    names = list(_names_below(complete)) if complete.is_dir() else []
    if names:
        limit = (complete / RECORD_FILE).stat().st_size if of_this_run else MAX_FILE_BYTES
        listed = recorded_names(complete, limit)
        if not listed.issuperset(names):
            raise refused(complete, f"holds files that no {RECORD_FILE} in it lists")
        recorded = _refuse_files_of_the_user(output_dir, names, overwrite)
        for name in sorted(recorded - listed):
            _remove_file(output_dir, name)
        for name in sorted(names, key=lambda name: (name == RECORD_FILE, name)):
            target = output_dir / name
            target.parent.mkdir(exist_ok=True)
            (complete / name).replace(target)
    remove_folder(complete)


def require_no_files_of_the_user(output_dir: Path, names: re.Pattern[str] | None, *, overwrite: bool) -> None:
    """Check, before a run begins, that it would replace no file of the user's own, and touch none of another user.

    Args:
        output_dir: where the result goes.
        names: names of the files that the run may write; None where only those that the record lists are checked.
        overwrite: whether it may replace files that no record lists.

    Raises:
        OutputError: such a file is in the way.
    """
    there = () if names is None else filter(names.fullmatch, _names_below(output_dir))
    _refuse_files_of_the_user(output_dir, there, overwrite)


def _refuse_files_of_the_user(output_dir: Path, names: Iterable[str], overwrite: bool) -> set[str]:
    """Check what files of these names would replace; return the names that the record lists."""
    there = {name: found for name in sorted(names) if (found := _found(output_dir / name)) is not None}
    for name, found in there.items():
        if stat.S_ISDIR(found.st_mode):
            raise refused(output_dir / name, "a folder, where a run writes a file")
    recorded = recorded_names(output_dir)
    _require_own_files(output_dir, recorded.union(there))
    others = [name for name in there if name not in recorded]
    if others and not overwrite:
        more = f" and {len(others) - 1} more of your files" if others[1:] else ""
        raise OutputError(
            f"{output_dir / others[0]}{more} would be replaced, and no {RECORD_FILE} of a run lists "
            f"{'them' if more else 'it'}; choose another --output_dir, or let `analyze --overwrite` replace what a "
            "run writes"
        )
    return recorded


def _require_own_files(output_dir: Path, names: Iterable[str]) -> None:
    """Check that no file of another user would be replaced or removed: in a sticky directory that fails half-way."""
    user = user_of_new_files(output_dir)
    for name in sorted(names):
        if (found := _found(output_dir / name)) is not None:
            require_owner(output_dir / name, found, user)


def _names_below(folder: Path) -> Iterator[str]:
    """Yield the names of everything in a folder and in the folders of a result inside it, relative to it."""
    for name in os.listdir(folder):
        if RESULT_FOLDERS.fullmatch(name):
            yield from (f"{name}/{inner}" for inner in os.listdir(folder / name))
        else:
            yield name


def _found(path: Path) -> os.stat_result | None:
    """What is at a path, a link not followed; None where nothing is."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.lstat()
    return None


def _remove_file(output_dir: Path, name: str) -> None:
    """Remove a file or a link of the earlier result, and its folder if it is then empty."""
    path = output_dir / name
    found = _found(path)
    if found is not None and (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        path.unlink()
    if path.parent != output_dir:
        with suppress(OSError):  # not empty
            path.parent.rmdir()
