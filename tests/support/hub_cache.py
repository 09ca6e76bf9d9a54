"""A cache as the Hub's own client makes it."""

import hashlib
import os
import shutil
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, repository: str, content: Path, commit: str = COMMIT) -> None:
    """Put a folder into a Hub cache as the Hub's own client lays it out: blobs, links to them, and a reference."""
    repository_cache = cache / f"models--{repository.replace('/', '--')}"
    (repository_cache / "refs").mkdir(parents=True)
    (repository_cache / "refs" / "main").write_text(commit)
    (repository_cache / "blobs").mkdir()
    for path in sorted(path for path in content.rglob("*") if path.is_file()):
        blob = repository_cache / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        link = repository_cache / "snapshots" / commit / path.relative_to(content)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
