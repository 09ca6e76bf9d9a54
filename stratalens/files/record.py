"""The record of a run, `run.json`, as far as it says which files of a directory a run of stratalens wrote."""

import json
from pathlib import Path, PurePath
from typing import Any

from stratalens.files.plain_yaml import MAX_FILE_BYTES
from stratalens.files.regular import read_regular
from stratalens.files.result_names import ANY_RESULT_NAME, RECORD_FILE


def read_record(directory: Path, max_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """Read the record in a directory.

    Args:
        directory: an output directory, or another one with the files of a result.
        max_bytes: a larger record is not read; a greater limit is only for one that this process wrote.

    Returns:
        its content; empty where there is none, or where it is a link, damaged, too large or of another program.
    """
    path = directory / RECORD_FILE
    try:
        content = {} if path.is_symlink() else json.loads(read_regular(path, max_bytes))
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(content, dict) and "format" in content and isinstance(content.get("stratalens"), str)
    return content if is_ours and isinstance(content.get("files"), list) else {}


def recorded_names(directory: Path, max_bytes: int = MAX_FILE_BYTES) -> set[str]:
    """Names of the files that a record lists, itself included; empty where `read_record` finds none.

    Only names that a run writes are returned, whatever the record lists.
    """
    record = read_record(directory, max_bytes)
    listed = [PurePath(name).as_posix() for name in record.get("files", []) if isinstance(name, str)]
    return {RECORD_FILE, *filter(ANY_RESULT_NAME.fullmatch, listed)} if record else set()
