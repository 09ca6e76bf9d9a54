"""Paths of the data that ships with the package and of the cache."""

import os
from pathlib import Path

DATA_DIRECTORY = Path(__file__).parents[1] / "data"
"""Directory of the texts, lexicons, prompts, SAEs and parts of the report page that ship with the package."""


def cache_directory() -> Path:
    """Return `$STRATALENS_CACHE`, or the cache directory of the user's system, such as `~/.cache/stratalens`."""
    if named := os.environ.get("STRATALENS_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("stratalens", appauthor=False)
