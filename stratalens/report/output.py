"""The output directory: results are written beside their place and moved there together when all are complete."""

import errno
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stratalens.errors import OutputError

RECORD_FILE = "run.json"


@contextmanager
def staged(output_dir: Path) -> Iterator[Path]:
    """Yield an empty directory; what it holds at the end replaces an earlier run's files in `output_dir`.

    Files that no run of stratalens wrote are left alone. After an error nothing has changed.

    Raises:
        OutputError: the directory cannot be written.
    """
    created = [place for place in (output_dir, *output_dir.parents) if not place.exists()]
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=output_dir))
    except OSError as error:
        raise OutputError(f"{output_dir}: cannot be written: {error.strerror}; choose another --output_dir") from None
    try:
        yield staging
        _replace(staging, output_dir)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{output_dir}: the disk is full; make room or choose another --output_dir") from None
        if error.filename is None or not str(error.filename).startswith(str(output_dir)):
            raise
        raise OutputError(f"{error.filename}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for place in created:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def _replace(staging: Path, output_dir: Path) -> None:
    """Move the files in, the record last, so that a record always stands for a complete set."""
    for name in _earlier_files(output_dir):
        (output_dir / name).unlink(missing_ok=True)
        parent = (output_dir / name).parent
        if parent != output_dir and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
    files = sorted((p for p in staging.rglob("*") if p.is_file()), key=lambda p: (p.name == RECORD_FILE, p))
    for path in files:
        target = output_dir / path.relative_to(staging)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)


def _earlier_files(output_dir: Path) -> list[str]:
    try:
        names = json.loads((output_dir / RECORD_FILE).read_text(encoding="utf-8"))["files"]
        inside = [name for name in names if (output_dir / name).resolve().is_relative_to(output_dir.resolve())]
        return [RECORD_FILE, *inside]
    except (OSError, ValueError, KeyError, TypeError):
        return []
