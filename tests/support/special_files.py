"""Files that are no regular files: reading them waits for ever, or never ends."""

import os
from pathlib import Path

SPECIAL = {
    "a named pipe": "a regular file was expected, this is a named pipe",
    "a device without end": "a regular file was expected, this is a device",
    "a directory": "Is a directory",
}
"""Kind -> what the error says."""


def made_special(kind: str, path: Path) -> Path:
    """Make such a file at this path, or a link to one."""
    path.unlink(missing_ok=True)
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device without end":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path
