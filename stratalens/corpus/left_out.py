"""What is in a directory of texts and is not read: counted, and told in one line."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stratalens.corpus.reading.formats import ending_of, format_of
from stratalens.corpus.remote import FoundFiles, Url
from stratalens.files.result_names import ANY_RESULT_NAME, RECORD_FILE

HIDDEN = "hidden files are not read"
LINKS_OUTSIDE = "links out of it are not followed"
LINKED_DIRECTORIES = "linked directories are not entered"
NOT_REGULAR = "broken links and what is no regular file is not read"
RESULTS = "files of a result of stratalens are not read"
_REMEDIES = {LINKS_OUTSIDE: "; to read them, name what they point to"}
MAX_ENDINGS_SHOWN = 6


def describe_left_out(found: FoundFiles) -> list[str]:
    """What is not read, in one clause for each reason."""
    clauses = [
        f"{reason}: {len(paths):,}, such as {paths[0]}{_REMEDIES.get(reason, '')}"
        for reason, paths in sorted(found.left_out.items())
    ]
    unknown = [file for file in found.files if format_of(file) is None] if found.in_directory else []
    if unknown:
        clauses.append(f"not read for their endings: {_by_ending(unknown)}, such as {unknown[0]}")
    return clauses


def without_results(found: FoundFiles, output_dir: Path | None) -> FoundFiles:
    """Leave out the files of results: of the run's own, and of others that are in a directory.

    Args:
        found: what was found.
        output_dir: where the run writes.
    """
    own = [Path(os.path.realpath(output_dir))] if output_dir is not None else []
    local = [file for file in found.files if isinstance(file, Path)]
    if found.in_directory:
        own += [Path(os.path.realpath(file.parent)) for file in local if file.name == RECORD_FILE]
    results = {file for file in local if own and _is_of_result(file, own)}
    if not results:
        return found
    kept = [file for file in found.files if file not in results]
    return found._replace(files=kept, left_out={**found.left_out, RESULTS: sorted(results)})


def _is_of_result(file: Path, directories: Sequence[Path]) -> bool:
    real = Path(os.path.realpath(file))
    return any(
        real.is_relative_to(directory) and ANY_RESULT_NAME.fullmatch(real.relative_to(directory).as_posix())
        for directory in directories
    )


def _by_ending(files: Sequence[Path | Url]) -> str:
    counts = Counter(ending_of(file) or "without an ending" for file in files).most_common()
    shown = [f"{count:,} {ending}" for ending, count in counts[:MAX_ENDINGS_SHOWN]]
    others = sum(count for _, count in counts[MAX_ENDINGS_SHOWN:])
    return ", ".join([*shown, *([f"{others:,} others"] if others else [])])
