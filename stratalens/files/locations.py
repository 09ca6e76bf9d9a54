"""Where files of the package lie, and those that stratalens keeps for the user."""

import os
from pathlib import Path

DATA_DIRECTORY = Path(__file__).parents[1] / "data"
"""Texts, lexicons, prompts, SAEs and the parts of the page that ship with the package."""


def cache_directory() -> Path:
    """`$STRATALENS_CACHE`, else the directory for caches that the user's system has, such as `~/.cache/stratalens`."""
    if chosen := os.environ.get("STRATALENS_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("stratalens", appauthor=False)
