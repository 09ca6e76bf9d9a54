"""Formats of SAE checkpoints. A format is a module of its own, which imports no other."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.saes.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    goodfire,
    llama_scope,
    llamascopium,
    qwen_scope,
    saelens,
    sparsify,
    tensors,
)
from stratalens.saes.sae import Checkpoint, SaeFile
from stratalens.saes.tree import SaeTree


@runtime_checkable
class Format(Protocol):
    """What a module must have to read a format of SAE checkpoints."""

    TAKES_ACTIVATION: bool
    """Whether its checkpoints may not say which activation they have, so that the user does."""

    def recognises(self, tree: SaeTree) -> bool:
        """Whether there are checkpoints of this format among some files."""
        ...

    def checkpoints(self, tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> Sequence[Checkpoint]:
        """Find the checkpoints and where their SAEs read, without reading weights; several may read at one hookpoint.

        Args:
            tree: the files.
            model: tells which modules stand at which hookpoint; its weights may be missing.
            told: what the user says of their activation; None unless `TAKES_ACTIVATION`.

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


FORMATS: dict[str, Format] = {
    "sparsify": sparsify,
    "saelens": saelens,
    "gemma_scope": gemma_scope,
    "gemma_scope_2": gemma_scope_2,
    "dictionary_learning": dictionary_learning,
    "llama_scope": llama_scope,
    "llamascopium": llamascopium,
    "qwen_scope": qwen_scope,
    "circuit_tracer": circuit_tracer,
    "goodfire": goodfire,
    "tensors": tensors,
}
"""Name -> format; the first that recognises a directory reads it.

The last is `tensors`, which takes most: what is known not to be read is refused by name before it is tried.
"""
