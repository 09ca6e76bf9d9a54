"""Encoders on a device: what is asked for again is not loaded again, and what is not asked for is freed first."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from stratalens.hookpoint import Hookpoint
from stratalens.saes.sae import Encoder, SaeFile


@dataclass
class LoadedEncoders:
    """The encoders that were asked for last."""

    _by_digest: dict[str, Encoder] = field(default_factory=dict)

    def of(self, files: Mapping[Hookpoint, SaeFile], device: torch.device) -> dict[Hookpoint, Encoder]:
        """Return hookpoint -> encoder on the device, and forget all others.

        Raises:
            CheckpointError: one is damaged.
        """
        wanted = {file.digest for file in files.values()}
        for digest in self._by_digest.keys() - wanted:
            del self._by_digest[digest]
        for file in files.values():
            if file.digest not in self._by_digest:
                self._by_digest[file.digest] = file.encoder().on(device)
        return {hookpoint: self._by_digest[file.digest] for hookpoint, file in files.items()}

    def keep(self, file: SaeFile, encoder: Encoder) -> None:
        """Keep an encoder that is on the device already."""
        self._by_digest[file.digest] = encoder

    def clear(self) -> None:
        """Forget all."""
        self._by_digest.clear()
