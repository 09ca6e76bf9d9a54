"""The record of a run, `run.json`, as far as it says which files of a directory a run of stratalens wrote."""

import json
from pathlib import Path, PurePath
from typing import Any

from stratalens.files.own_folders import user_of_new_files
from stratalens.files.plain_yaml import MAX_FILE_BYTES
from stratalens.files.regular import read_regular
from stratalens.files.result_names import ANY_RESULT_NAME, RECORD_FILE

MAX_RECORDED_FILES = 100_000
"""A run writes about ten files a layer, and few more; what lists more files is no record of a run."""
MAX_NAME_CHARACTERS = 255
"""The name of a file of a result is shorter; longer ones are passed over unread."""


def read_record(directory: Path, max_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """Read the record in a directory where this user can make files.

    Args:
        directory: an output directory, or another one with the files of a result.
        max_bytes: a larger record is not read; a greater limit is only for one that this process wrote.

    Returns:
        its content; empty where there is none, or where it is a link, damaged, too large, of another user or of another
        program.
    """
    path = directory / RECORD_FILE
    try:
        if path.is_symlink():
            return {}
        content = json.loads(read_regular(path, max_bytes, user_of_new_files(directory)))
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(content, dict) and "format" in content and isinstance(content.get("stratalens"), str)
    files = content.get("files") if is_ours else None
    return content if isinstance(files, list) and len(files) <= MAX_RECORDED_FILES else {}


def recorded_names(directory: Path, max_bytes: int = MAX_FILE_BYTES) -> set[str]:
    """Names of the files that a record lists, itself included; empty where `read_record` finds none.

    Only names that a run writes are returned, whatever the record lists.
    """
    record = read_record(directory, max_bytes)
    short = (name for name in record.get("files", []) if isinstance(name, str) and len(name) <= MAX_NAME_CHARACTERS)
    listed = (PurePath(name).as_posix() for name in short)
    return {RECORD_FILE, *filter(ANY_RESULT_NAME.fullmatch, listed)} if record else set()
