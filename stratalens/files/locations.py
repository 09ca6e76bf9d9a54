"""Paths that the user names, of the data that ships with the package, and of the cache, which is the user's alone."""

import os
import shlex
from pathlib import Path

from stratalens.errors import ConfigError, OutputError
from stratalens.files.private import PRIVATE_FOLDER, foreign_owner, make_private, others_may_write

DATA_DIRECTORY = Path(__file__).parents[1] / "data"
"""Directory of the texts, lexicons, sentence pairs, prompts, SAEs and parts of the page that ship with the package."""
ANOTHER_CACHE = "name another directory in the environment variable STRATALENS_CACHE"


def user_path(name: str) -> Path:
    """Make a path of what the user wrote, `~` and `~user` at its beginning replaced by that home directory.

    Raises:
        ConfigError: there is no such user, or the home directory is not known.
    """
    expanded = name if "\0" in name else os.path.expanduser(name)
    if expanded == name and name.startswith("~"):
        raise ConfigError(
            f"{name}: no home directory of such a user; write the whole path, or `./{name}` for a file of that name"
        )
    return Path(expanded)


def cache_folder(name: str) -> Path:
    """Return a folder of the cache that only the user can enter; it is made if it is missing.

    The cache is `$STRATALENS_CACHE`, or the cache directory of the user's system, such as `~/.cache/stratalens`.

    Args:
        name: of the folder.

    Raises:
        OutputError: the folder cannot be made, or somebody else could change what is in it.
        ConfigError: the variable names the home directory of a user who is not known.
    """
    cache = _cache_directory()
    folder = cache / name
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        _require_own(cache)
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        _require_own(folder)
        make_private(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{cache}: nothing can be kept in this cache ({reason}); {ANOTHER_CACHE}") from None
    return folder


def _cache_directory() -> Path:
    if named := os.environ.get("STRATALENS_CACHE"):
        return user_path(named)
    from platformdirs import user_cache_path

    return user_cache_path("stratalens", appauthor=False)


def _require_own(folder: Path) -> None:
    if (owner := foreign_owner(folder)) is not None:
        raise OutputError(
            f"{folder}: user {owner}, to whom it belongs, could change what is in this cache; {ANOTHER_CACHE}"
        )
    if others_may_write(folder):
        raise OutputError(
            f"{folder}: other users could change what is in this cache; if you trust what is there, run "
            f"`chmod -R go-w {shlex.quote(str(folder))}`, else {ANOTHER_CACHE}"
        )
