"""The output directory: one run at a time works in it; its result is published at the end, completely or not at all.

OUTPUT_DIR/                    the finished result, with its record `run.json`
OUTPUT_DIR/.unfinished/        files of a run that is not finished
    shards/                    what it has read so far; kept when the run is stopped
    staging/                   files of the new result while they are written; removed when the run is stopped
    complete/                  all files of the new result, while they are moved into OUTPUT_DIR
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stratalens.errors import OutputError

RECORD_FILE = "run.json"
WORK_FOLDER = ".unfinished"
LOCK_FILE = ".stratalens.lock"
STATE_SUFFIX = ".state"
"""File name suffix of the shards: what a run has read of its text."""


@dataclass(frozen=True)
class WorkDirectories:
    """The directories that a run reads and writes."""

    result: Path
    """The output directory; it holds the finished result, if there is one."""
    staging: Path
    """Empty at first; at the end its files replace those of an earlier run in `result`."""
    shards: Path
    """Where shards are stored; may hold those of an earlier run that was stopped."""


@contextmanager
def working_in(output_dir: Path) -> Iterator[WorkDirectories]:
    """Lock an output directory; on success publish the staged files, the record last.

    Files that no run of stratalens wrote are kept, and so are those of an earlier run that the new record lists.
    After an error the earlier result is unchanged.

    Args:
        output_dir: created if it is missing; removed again if it stays empty.

    Raises:
        OutputError: the directory cannot be written, or another run works in it.
    """
    created = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    unfinished = output_dir / WORK_FOLDER
    work = WorkDirectories(output_dir, unfinished / "staging", unfinished / "shards")
    try:
        with _locked(output_dir), _output_errors(output_dir):
            try:
                _publish_complete(output_dir)  # finish an interrupted publish
                shutil.rmtree(work.staging, ignore_errors=True)
                work.staging.mkdir(parents=True)
                yield work
                _mark_complete(work)
                _publish_complete(output_dir)
                shutil.rmtree(unfinished)
            finally:
                shutil.rmtree(work.staging, ignore_errors=True)
                if not any(path.suffix == STATE_SUFFIX for path in work.shards.rglob("*")):
                    shutil.rmtree(work.shards, ignore_errors=True)
                with suppress(OSError):  # not empty: a later run continues with the shards
                    unfinished.rmdir()
    finally:
        for folder in created:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


@contextmanager
def _locked(output_dir: Path) -> Iterator[None]:
    """Create the directory and hold its lock.

    Raises:
        OutputError: another process holds the lock, or the directory cannot be created or written.
    """
    from filelock import FileLock, Timeout

    path = output_dir / LOCK_FILE
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=0):
            try:
                path.write_text(f"{os.getpid()}\n", encoding="utf-8")
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout:
        with suppress(OSError):
            owner = path.read_text(encoding="utf-8").strip()
            raise OutputError(
                f"{output_dir}: another run (process {owner or 'unknown'}) is working here; wait for it, or choose "
                "another --output_dir"
            ) from None
        raise OutputError(f"{output_dir}: another run was working here just now; try again") from None
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) in (output_dir, path, *output_dir.parents):
            reason = error.strerror or "unknown reason"
            raise OutputError(f"{output_dir}: cannot be written: {reason}; choose another --output_dir") from None
        raise


@contextmanager
def _output_errors(output_dir: Path) -> Iterator[None]:
    """Turn errors of the operating system in this directory into an OutputError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"{output_dir}: the disk is full; free some space and run the same command again, or choose another "
                "--output_dir"
            ) from None
        if error.filename is None or not str(error.filename).startswith(str(output_dir)):
            raise
        raise OutputError(f"{error.filename}: cannot be written: {error.strerror}") from None


def _mark_complete(work: WorkDirectories) -> None:
    """Mark the staged files as complete: if this run is stopped from here on, the next one publishes them."""
    _require_inside(work.staging, work.result)
    for path in work.staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    work.staging.rename(work.staging.with_name("complete"))


def _publish_complete(output_dir: Path) -> None:
    """Move complete files into the output directory, if there are any; may be repeated after an interruption.

    The record is moved last, so that every file that a record lists is there.
    """
    complete = output_dir / WORK_FOLDER / "complete"
    if (complete / RECORD_FILE).is_file():
        _require_inside(complete, output_dir)
        kept = {output_dir / name for name in _recorded_files(complete / RECORD_FILE)}
        for path in _earlier_files(output_dir):
            if path in kept:
                continue
            path.unlink(missing_ok=True)
            if path.parent != output_dir and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
        files = (path for path in complete.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: (path.name == RECORD_FILE, path)):
            target = output_dir / path.relative_to(complete)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    shutil.rmtree(complete, ignore_errors=True)


def _require_inside(staging: Path, output_dir: Path) -> None:
    """Refuse to write through links in the output directory that point outside it."""
    for folder in sorted(path for path in staging.rglob("*") if path.is_dir()):
        target = output_dir / folder.relative_to(staging)
        if not _is_inside(target, output_dir):
            raise OutputError(f"{target}: points outside {output_dir}; remove this link or choose another --output_dir")


def _is_inside(path: Path, output_dir: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(output_dir))


def _earlier_files(output_dir: Path) -> list[Path]:
    """List the files of the earlier run; none where its record lists something that cannot be a file name."""
    try:
        # The folder of a name is checked, not what a link points to: the link itself is removed, not its target.
        paths = [output_dir / name for name in _recorded_files(output_dir / RECORD_FILE)]
        inside = [path for path in paths if _is_inside(path.parent, output_dir)]
        return [path for path in inside if path.is_symlink() or path.is_file()]
    except (OSError, ValueError):
        return []


def _recorded_files(record: Path) -> list[str]:
    """Read the relative paths that a record lists; none where it is missing or damaged."""
    try:
        names = json.loads(record.read_text(encoding="utf-8"))["files"]
        return [name for name in names if isinstance(name, str)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
