"""Directories that several tests read: made once per call of pytest, and shared by its workers behind a file lock."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

MADE = ".made"
RUNS = "STRATALENS_TEST_RUNS"
"""Environment variable: a directory for what several calls of pytest read, so that it is made only once."""


def call_directory(factory: pytest.TempPathFactory) -> Path:
    """The temporary directory of this call of pytest, which its workers share."""
    own = factory.getbasetemp()
    return own.parent if own.name.startswith("popen-") else own


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None], *, for_all_calls: bool = False
) -> Path:
    """The directory of that name, filled by the first worker that asks for it; tests must not change it."""
    shared = os.environ.get(RUNS) if for_all_calls else None
    directory = (call_directory(factory) if shared is None else Path(shared)) / name
    with FileLock(directory.with_name(f"{name}.lock")):
        if not (directory / MADE).exists():
            directory.mkdir()
            make(directory)
            (directory / MADE).touch()
    return directory
