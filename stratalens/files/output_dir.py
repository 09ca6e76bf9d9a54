"""The output directory: one run at a time works in it; its result is published at the end, completely or not at all.

OUTPUT_DIR/                    the finished result, with its record `run.json`
OUTPUT_DIR/.unfinished/        files of a run that is not finished
    shards/                    what it has read so far; kept when the run is stopped
    staging/                   files of the new result while they are written; removed when the run is stopped
    complete/                  all files of the new result, while they are moved into OUTPUT_DIR
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stratalens.errors import OutputError
from stratalens.files.lock import locked
from stratalens.files.own_folders import remove_folder, require_own_folders
from stratalens.files.private import make_private
from stratalens.files.publishing import mark_complete, publish_complete, require_no_files_of_the_user
from stratalens.files.result_names import SHARDS_FOLDER, STAGING_FOLDER, STATE_SUFFIX, WORK_FOLDER


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
def working_in(
    output_dir: Path, *, writes: re.Pattern[str] | None = None, overwrite: bool = False
) -> Iterator[WorkDirectories]:
    """Lock an output directory; on success publish the staged files, the record last.

    Files that no run of stratalens wrote are kept, and so are those of an earlier run that the new record lists.
    After an error the earlier result is unchanged.

    Args:
        output_dir: created if it is missing; removed again if it stays empty.
        writes: names of the files that the run may write, where files of the user's own with such names must be
            refused before the work; they are refused at the end in any case.
        overwrite: whether files with such names that no record lists may be replaced.

    Raises:
        OutputError: the directory cannot be written, another run works in it, it holds a link or something of another
            user in the place of what a run writes, or a file of the user's own would be replaced.
    """
    created = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    unfinished = output_dir / WORK_FOLDER
    work = WorkDirectories(output_dir, unfinished / STAGING_FOLDER, unfinished / SHARDS_FOLDER)
    try:
        with locked(output_dir), _output_errors(output_dir):
            require_own_folders(output_dir)
            try:
                publish_complete(output_dir, overwrite=overwrite)  # finish an interrupted publish
                require_no_files_of_the_user(output_dir, writes, overwrite=overwrite)
                remove_folder(work.staging)
                make_private(unfinished)
                work.staging.mkdir()
                yield work
                require_own_folders(output_dir)  # once more: the work took long
                mark_complete(work.staging, output_dir, overwrite=overwrite)
                publish_complete(output_dir, overwrite=overwrite, of_this_run=True)
                remove_folder(work.shards)
            finally:
                _remove_unfinished(work)
    finally:
        for folder in created:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _remove_unfinished(work: WorkDirectories) -> None:
    """Remove what no later run can use; shards stay, so that it continues with them."""
    remove_folder(work.staging)
    if not any(path.suffix == STATE_SUFFIX for path in work.shards.rglob("*")):
        remove_folder(work.shards)
    with suppress(OSError):  # not empty
        work.shards.parent.rmdir()


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
