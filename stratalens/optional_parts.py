"""Parts that a result can do without: one that fails is left out with its reason, and the run goes on without it."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from stratalens.errors import OutputError, printable
from stratalens.files.redaction import as_printed
from stratalens.progress import Progress

LENS = "logit lens"
LABELS = "labels from the evidence"
LABELLING_MODEL = "labelling model"
FIGURES = "figures"
PAGE = "report page"
TOKEN_TEST = "token test"
DISK_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
"""Errors of the operating system after which nothing else of the result can be written either."""
MAX_REASON_CHARACTERS = 300


class OptionalParts:
    """The optional parts of one result: makes them and remembers which of them are missing, and why.

    Args:
        progress: receives a warning for each part that is left out.
        missing: part -> reason, for the parts that an earlier command left out and this one does not make.
        required: whether every part was asked for, so that its failure is an error.
    """

    def __init__(self, progress: Progress, missing: Mapping[str, str] | None = None, *, required: bool = False):
        self.progress = progress
        self.missing = dict(missing or {})
        self._required = required

    @contextmanager
    def part(self, name: str, of: str = "") -> Iterator[None]:
        """Make a part inside the block, which stores what it made in its last step or leaves nothing behind.

        Args:
            name: one of those above.
            of: what the part belongs to, where it is one of several.

        Raises:
            Exception: the part failed and is required, or something failed without which there is no result: the disk,
                or what is already written on it.
        """
        name = f"{name} of {of}" if of else name
        self.missing.pop(name, None)
        try:
            yield
        except Exception as error:
            is_of_disk = isinstance(error, OutputError) or (isinstance(error, OSError) and error.errno in DISK_ERRORS)
            if self._required or is_of_disk:
                raise
            self.missing[name] = _reason(error)
            self.progress.warn(f"{name}: left out ({self.missing[name]})")


def without_parts(missing: Mapping[str, str], *names: str) -> dict[str, str]:
    """Leave out of part -> reason the parts of these names, and those that are one of several."""
    return {part: reason for part, reason in missing.items() if not any(_is_of(part, name) for name in names)}


def _is_of(part: str, name: str) -> bool:
    return part == name or part.startswith(f"{name} of ")


def _reason(error: Exception) -> str:
    """The class and the message of an error on one line of limited length, without secrets."""
    message = printable(" ".join(as_printed(str(error)).split()))[:MAX_REASON_CHARACTERS]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
