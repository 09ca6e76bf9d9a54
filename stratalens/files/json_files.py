"""Look into a small JSON file that may be anything, to tell what a folder holds."""

import json
from pathlib import Path
from typing import Any

from stratalens.files.regular import read_regular

MAX_CONFIG_BYTES = 2**20


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none, or the file cannot be read or is larger than 1 MiB."""
    try:
        content = json.loads(read_regular(path, MAX_CONFIG_BYTES).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
