"""Formats of SAE checkpoints. A format is a module of its own, which imports no other."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from stratalens.hookpoint import Hookpoint
from stratalens.saes.formats import sparsify
from stratalens.saes.sae import Checkpoint, Sae, SaeFile


@runtime_checkable
class Format(Protocol):
    """What a module must have to read a format of SAE checkpoints."""

    def recognises(self, root: Path) -> bool:
        """Whether a directory holds checkpoints of this format."""
        ...

    def hub_patterns(self, blocks: Iterable[int] | None) -> list[str]:
        """Patterns of the files to download from a Hub repository, for some blocks or for all."""
        ...

    def hookpoints(self, root: Path, model: nn.Module) -> dict[Hookpoint, Checkpoint]:
        """Find where each SAE of a directory reads, without reading weights.

        Raises:
            CheckpointError: there is none for this model.
        """
        ...

    def describe(self, checkpoint: Checkpoint) -> SaeFile:
        """Read the configuration of one checkpoint, and check its tensors as far as possible without reading them.

        Raises:
            CheckpointError: a file is missing, corrupt or of an unsupported kind.
        """
        ...

    def load(self, folder: Path) -> Sae:
        """Load one checkpoint.

        Raises:
            CheckpointError: a file is missing, corrupt, of an unsupported kind, or holds values that are not finite.
        """
        ...


FORMATS: dict[str, Format] = {"sparsify": sparsify}
"""Name -> format; the first that recognises a directory reads it."""
