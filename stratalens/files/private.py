"""Folders and files that nobody but the user may read or change."""

import os
import stat
from contextlib import suppress
from pathlib import Path

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path) -> None:
    """Make a folder that only the user can enter, or take the rights of others from one that is there.

    Args:
        folder: its parent must exist.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & OTHERS:
        with suppress(OSError):  # it is the superuser's, or on a drive that knows no rights
            folder.chmod(mode & ~OTHERS)


def foreign_owner(folder: Path) -> int | None:
    """Number of the user to whom a folder, or the link to it, belongs, if that is neither this user nor the superuser.

    Raises:
        OSError: the folder may not be looked at.
    """
    owners = (folder.lstat().st_uid, folder.stat().st_uid) if os.name == "posix" else ()
    return next((owner for owner in owners if owner not in (os.geteuid(), 0)), None)


def others_may_write(folder: Path) -> bool:
    """Whether the rights of a folder let other users change what is in it.

    Raises:
        OSError: the folder may not be looked at.
    """
    return os.name == "posix" and bool(folder.stat().st_mode & OTHERS_WRITE)
