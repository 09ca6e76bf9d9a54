"""Estimate the disk space that a run takes for its harvest."""

import math
import shutil
from pathlib import Path
from typing import NamedTuple

from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.keep_plan import CODE_BYTES
from stratalens.harvest.memory_plan import CELL_BYTES, latents_per_token
from stratalens.harvest.shards import shard_characters

ENTRY_BYTES = 12
"""Bytes for the value of one latent in one sampled document: row, latent, value."""
RESIDUAL_BYTES = 4
"""Bytes for one component of the mean hookpoint vector of a sampled document."""


TEXT_BYTES = 16
"""Bytes for the text, the number and the place of a token that is kept with its codes."""
FILE_BYTES = 12_000
"""Bytes of a file of codes that holds none."""


class DiskEstimate(NamedTuple):
    """Disk space of a harvest, in bytes, estimated."""

    shards: int
    """Number of shards."""
    unfinished: int
    """States and token-level codes of all shards, which are kept until the run ends."""
    harvest: int
    """Merged states, which stay in the result."""
    codes: int
    """Token-level codes that stay in the result."""

    def describe(self, output_dir: Path) -> str:
        """Say in one line, in GB, what a run takes and what is free where it writes."""
        existing = next(folder for folder in (output_dir, *output_dir.resolve().parents) if folder.is_dir())
        stays = self.harvest + self.codes
        total, free = (self.unfinished + stays) / 1e9, shutil.disk_usage(existing).free / 1e9
        return (
            f"Disk: about {total:.2f} GB during the run (shards: {self.shards:,}), {stays / 1e9:.2f} GB of "
            f"it stays; {free:.0f} GB are free"
        )


def estimate_disk(inputs: RunInputs, tokens: int, keep_bytes: int) -> DiskEstimate:
    """Estimate the disk space of the harvest. A wide SAE on much text may take somewhat more: its histograms fill.

    Args:
        inputs: text and SAEs of the run.
        tokens: number of tokens of the text.
        keep_bytes: bytes that token-level codes may take.
    """
    characters = inputs.survey.characters
    shards = max(1, math.ceil(characters / shard_characters(characters)))
    documents = len(inputs.survey.sample)
    unfinished = harvest = codes = 0
    for sae in inputs.saes.values():
        cells, fired = len(inputs.survey.populations) * sae.num_latents, round(tokens * latents_per_token(sae))
        sample = ENTRY_BYTES * min(documents * sae.num_latents, fired) + RESIDUAL_BYTES * documents * sae.d_model
        harvest += CELL_BYTES * min(cells, fired) + sample
        unfinished += CELL_BYTES * min(shards * cells, fired) + sample
        codes += CODE_BYTES * fired + TEXT_BYTES * tokens
    kept = min(keep_bytes, int(codes))
    if kept:
        unfinished += kept + FILE_BYTES * shards * len(inputs.saes)
        kept += FILE_BYTES * len(inputs.saes)
    return DiskEstimate(shards, unfinished, harvest, kept)
