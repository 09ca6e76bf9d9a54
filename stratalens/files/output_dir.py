"""The output directory: one run at a time works in it, and its result is published at the end, whole or not at all.

OUTPUT_DIR/                    the finished result, with its record `run.json`
OUTPUT_DIR/.unfinished/        what a run works on
    shards/                    what it has read so far; stays when the run is stopped
    staging/                   files of the result as they are written; removed when the run is stopped
    complete/                  all files of the result, safe on disk, while they are moved into OUTPUT_DIR
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
"""Ending of the files that hold what a run has read of its text."""


@dataclass(frozen=True)
class WorkDirectories:
    """Where a run reads and writes."""

    result: Path
    """The output directory: holds the finished result, if there is one."""
    staging: Path
    """Empty at first; what it holds at the end replaces an earlier run's files in `result`."""
    shards: Path
    """What has been read so far; may hold shards of an earlier run that was stopped."""


@contextmanager
def working_in(output_dir: Path) -> Iterator[WorkDirectories]:
    """Work alone in an output directory; on success publish what was staged, with the record last.

    Files that no run of stratalens wrote are left alone, and so are those of an earlier run that the new record names.
    After an error the earlier result is unchanged.

    Args:
        output_dir: made if it is missing; removed again if it stays empty.

    Raises:
        OutputError: the directory cannot be written, or another run works in it.
    """
    created = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    unfinished = output_dir / WORK_FOLDER
    work = WorkDirectories(output_dir, unfinished / "staging", unfinished / "shards")
    try:
        with _locked(output_dir), _named_errors(output_dir):
            try:
                _publish_complete(output_dir)  # finish an interrupted publish
                shutil.rmtree(work.staging, ignore_errors=True)
                work.staging.mkdir(parents=True)
                yield work
                _complete(work)
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
def _named_errors(output_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"{output_dir}: the disk is full; make room and run the same command again, or choose another "
                "--output_dir"
            ) from None
        if error.filename is None or not str(error.filename).startswith(str(output_dir)):
            raise
        raise OutputError(f"{error.filename}: cannot be written: {error.strerror}") from None


def _complete(work: WorkDirectories) -> None:
    """Mark the staged files as complete: from here on, a run that is stopped is completed by the next one."""
    _require_inside(work.staging, work.result)
    for path in work.staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    work.staging.rename(work.staging.with_name("complete"))


def _publish_complete(output_dir: Path) -> None:
    """Move complete files into the output directory, if there are any; may be repeated.

    The record is moved last, so that a record always stands for a complete set of files.
    """
    complete = output_dir / WORK_FOLDER / "complete"
    if (complete / RECORD_FILE).is_file():
        _require_inside(complete, output_dir)
        kept = {output_dir / name for name in _files_of(complete / RECORD_FILE)}
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
    for folder in sorted(path for path in staging.rglob("*") if path.is_dir()):
        target = output_dir / folder.relative_to(staging)
        if not _is_inside(target, output_dir):
            raise OutputError(f"{target}: leads out of {output_dir}; remove this link or choose another --output_dir")


def _is_inside(path: Path, output_dir: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(output_dir))


def _earlier_files(output_dir: Path) -> list[Path]:
    """Files of the run before; none where its record names what cannot be a file."""
    try:
        # A name is checked by the folder that it lies in: of a link, the link itself is removed, not its target.
        paths = [output_dir / name for name in _files_of(output_dir / RECORD_FILE)]
        inside = [path for path in paths if _is_inside(path.parent, output_dir)]
        return [path for path in inside if path.is_symlink() or path.is_file()]
    except (OSError, ValueError):
        return []


def _files_of(record: Path) -> list[str]:
    try:
        names = json.loads(record.read_text(encoding="utf-8"))["files"]
        return [name for name in names if isinstance(name, str)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
