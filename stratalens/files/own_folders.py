"""What a run may remove, move or write into: real folders and files of the user who runs it, and no links."""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from stratalens.errors import OutputError
from stratalens.files.result_names import RECORD_FILE, RESULT_FOLDERS, WORK_FILES, WORK_FOLDER, WORK_FOLDERS


def require_own_folders(output_dir: Path) -> None:
    """Look, without following links, at the record, at the folders of a result, and at all that a run left unfinished.

    The output directory itself may be a link and may belong to anybody: the user named it.

    Raises:
        OutputError: something is a link, belongs to another user, or is not what a run leaves in its place.
    """
    user = user_of_new_files(output_dir)
    record, unfinished = output_dir / RECORD_FILE, output_dir / WORK_FOLDER
    with suppress(FileNotFoundError):
        _require_own_record(record, record.lstat(), user)
    for name in sorted(os.listdir(output_dir)):
        if RESULT_FOLDERS.fullmatch(name) or name == WORK_FOLDER:
            _require_own_folder(output_dir / name, user)
    if unfinished.exists():
        _require_own_contents(unfinished, "", user)


def require_owner(path: Path, found: os.stat_result, user: int) -> None:
    """Check that a file or folder belongs to a user.

    Raises:
        OutputError: it belongs to another.
    """
    if found.st_uid != user:
        raise OutputError(
            f"{path}: belongs to user {found.st_uid}, not to user {user}, who runs this; if you trust what is there, "
            "make it yours with `chown -R`, else choose another --output_dir"
        )


def user_of_new_files(directory: Path) -> int:
    """Number of the user to whom files belong that this process makes in a directory; 0 where there are no owners.

    On some network drives this is not the user who runs the process, so a nameless file is made to see it.

    Raises:
        OSError: no file can be made here.
    """
    with tempfile.TemporaryFile(dir=directory) as probe:
        return os.fstat(probe.fileno()).st_uid


def refused(path: Path, found: str) -> OutputError:
    """Make the error for something in the place of what a run writes.

    Args:
        path: where it is.
        found: what is there.
    """
    return OutputError(f"{path}: {found}; move it away or choose another --output_dir")


def remove_folder(path: Path) -> None:
    """Remove a folder and what is in it, as far as possible; neither it nor its parent may be a link."""
    if not shutil.rmtree.avoids_symlink_attacks:
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            shutil.rmtree(path.name, ignore_errors=True, dir_fd=parent)
        finally:
            os.close(parent)


def _require_own_record(path: Path, found: os.stat_result, user: int) -> None:
    """Refuse a record of somebody else: it would choose which files are replaced and removed."""
    if stat.S_ISLNK(found.st_mode):
        raise refused(path, "a link, where a run writes a file")
    require_owner(path, found, user)


def _require_own_folder(path: Path, user: int) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise refused(path, "a link, where a run makes a folder")
    if not stat.S_ISDIR(found.st_mode):
        raise refused(path, "not a folder, where a run makes one")
    require_owner(path, found, user)


def _require_own_contents(unfinished: Path, folder: str, user: int) -> None:
    """Check everything below a folder; as only known folders are entered, this ends after three levels."""
    for name in sorted(os.listdir(unfinished / folder)):
        inner = f"{folder}/{name}".removeprefix("/")
        path = unfinished / inner
        if WORK_FOLDERS.fullmatch(inner):
            _require_own_folder(path, user)
            _require_own_contents(unfinished, inner, user)
            continue
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise refused(path, "a link, where a run writes a file")
        if not (WORK_FILES.fullmatch(inner) and stat.S_ISREG(found.st_mode)):
            raise refused(path, "nothing that a run leaves here")
        require_owner(path, found, user)
