"""The output directory: results are written beside their place and moved there together when all are complete."""

import errno
import json
import os
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
    _require_inside(staging, output_dir)
    for path in _earlier_files(output_dir):
        path.unlink(missing_ok=True)
        parent = path.parent
        if parent != output_dir and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
    files = sorted((p for p in staging.rglob("*") if p.is_file()), key=lambda p: (p.name == RECORD_FILE, p))
    for path in files:
        target = output_dir / path.relative_to(staging)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)


def _require_inside(staging: Path, output_dir: Path) -> None:
    for folder in sorted(path for path in staging.rglob("*") if path.is_dir()):
        place = output_dir / folder.relative_to(staging)
        if not _is_inside(place, output_dir):
            raise OutputError(f"{place}: leads out of {output_dir}; remove this link or choose another --output_dir")


def _is_inside(place: Path, output_dir: Path) -> bool:
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(output_dir))


def _earlier_files(output_dir: Path) -> list[Path]:
    """Files of the run before, the record first; none where its record names what cannot be a file."""
    try:
        names = json.loads((output_dir / RECORD_FILE).read_text(encoding="utf-8"))["files"]
        # A name is checked by the folder that it lies in: a link is taken away itself, not what it leads to.
        inside = [output_dir / name for name in names if _is_inside((output_dir / name).parent, output_dir)]
        return [output_dir / RECORD_FILE, *(path for path in inside if path.is_symlink() or path.is_file())]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
