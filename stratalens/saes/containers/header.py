"""What a file of named arrays holds, and the errors of files that cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stratalens.errors import CheckpointError
from stratalens.files.regular import reason_of

FLOATING_POINT_PREFIXES = ("F", "BF")
"""Prefixes of the names of floating-point types in a header."""
MAX_LISTED_NAMES = 30
"""Arrays that an error message lists."""


@dataclass(frozen=True)
class Header:
    """What a file holds; no number of an array was looked at."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    """Name of an array -> its shape. Arrays in nested dictionaries are named `outer.inner`."""
    dtypes: Mapping[str, str]
    """Name of an array -> its type as safetensors names it, such as `BF16`."""
    values: Mapping[str, object] = field(default_factory=dict)
    """Name -> value, of what stands beside the arrays in a file of torch: numbers, texts and lists of such."""

    def require(self, expected: Mapping[str, tuple[int, ...]], source: str) -> None:
        """Check that there are some arrays of floating-point numbers.

        Args:
            expected: name -> shape.
            source: what says so, for the message.

        Raises:
            CheckpointError: one is missing, or of another shape or type.
        """
        for name, shape in expected.items():
            found = self.shape(name)
            if not self.dtypes[name].startswith(FLOATING_POINT_PREFIXES):
                raise CheckpointError(
                    f"{self.path}: `{name}` holds {self.dtypes[name]}, but floating-point numbers are expected"
                )
            if found != shape:
                raise CheckpointError(f"{self.path}: `{name}` has shape {list(found)}, but {source} says {list(shape)}")

    def shape(self, name: str, axes: int | None = None) -> tuple[int, ...]:
        """The shape of an array.

        Args:
            name: of the array.
            axes: how many it must have; None for any number.

        Raises:
            CheckpointError: it is missing, is empty, or has another number of axes.
        """
        if name not in self.shapes:
            names = sorted(self.shapes)
            found = ", ".join(names[:MAX_LISTED_NAMES]) + (", ..." if len(names) > MAX_LISTED_NAMES else "")
            raise CheckpointError(f"{self.path}: no tensor `{name}` (found: {found or 'none'})")
        shape = self.shapes[name]
        if axes is not None and (len(shape) != axes or 0 in shape):
            raise CheckpointError(
                f"{self.path}: `{name}` has shape {list(shape)}, but {axes} axes of at least 1 are expected"
            )
        return shape


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"{path}: missing")
    reason = (reason_of(error).splitlines() or ["unreadable"])[0]
    return CheckpointError(f"{path}: truncated or corrupt ({reason}); copy or download it again")
