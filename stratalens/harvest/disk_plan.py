"""Estimate the disk space that a run takes for its harvest."""

import math
import shutil
from pathlib import Path
from typing import NamedTuple

from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.memory_plan import CELL_BYTES
from stratalens.harvest.shards import shard_characters

ENTRY_BYTES = 12
"""Bytes for the value of one latent in one sampled document: row, latent, value."""
TYPICAL_L0 = 100
"""Latents that fire on a token, of an encoder that does not limit their number."""
RESIDUAL_BYTES = 4
"""Bytes for one component of the mean hookpoint vector of a sampled document."""


class DiskEstimate(NamedTuple):
    """Disk space of a harvest, in bytes, estimated."""

    shards: int
    """Number of shards."""
    unfinished: int
    """States of all shards, which are kept until the run ends."""
    harvest: int
    """Merged states, which stay in the result."""

    def describe(self, output_dir: Path) -> str:
        """Say in one line, in GB, what a run takes and what is free where it writes."""
        existing = next(folder for folder in (output_dir, *output_dir.resolve().parents) if folder.is_dir())
        total, free = (self.unfinished + self.harvest) / 1e9, shutil.disk_usage(existing).free / 1e9
        return (
            f"Disk: about {total:.2f} GB during the run (shards: {self.shards:,}), {self.harvest / 1e9:.2f} GB of "
            f"it stays; {free:.0f} GB are free"
        )


def estimate_disk(inputs: RunInputs, tokens: int) -> DiskEstimate:
    """Estimate the disk space of the harvest. A wide SAE on much text may take somewhat more: its histograms fill.

    Args:
        inputs: text and SAEs of the run.
        tokens: number of tokens of the text.
    """
    characters = inputs.survey.characters
    shards = max(1, math.ceil(characters / shard_characters(characters)))
    documents = len(inputs.survey.sample)
    unfinished = harvest = 0
    for sae in inputs.saes.values():
        cells, fired = len(inputs.survey.populations) * sae.num_latents, tokens * (sae.k or TYPICAL_L0)
        sample = ENTRY_BYTES * min(documents * sae.num_latents, fired) + RESIDUAL_BYTES * documents * sae.d_model
        harvest += CELL_BYTES * min(cells, fired) + sample
        unfinished += CELL_BYTES * min(shards * cells, fired) + sample
    return DiskEstimate(shards, unfinished, harvest)
