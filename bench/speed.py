"""Speed of the complete harvest compared with the bare forward pass of the same model on the same batches.

The two are timed in turn. The model is cut after the deepest analysed block.

python bench/speed.py [--rounds 5] [--rows 150]
"""

import math
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import tyro
from torch import nn

from stratalens.config.validation import make_config
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.chunks import chunks
from stratalens.harvest.inputs import find_inputs
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.shards import Shard, ShardTask, cut_shards, shard_characters
from stratalens.harvest.state.layer_state import pack_state
from stratalens.harvest.store import ShardStore, key_of
from stratalens.models import load_model
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.hooks import drop_blocks_above, forward
from stratalens.models.loading import Placement, choose_device, choose_dtype
from stratalens.models.streams import Division, Streams, division_of
from stratalens.models.token_classes import vocabulary_classes
from stratalens.progress import NoProgress
from stratalens.saes.loaded import LoadedEncoders
from stratalens.saes.probe import Probe

MIN_RATIO = 0.92
"""Required speed of the harvest, as a share of that of the bare forward pass."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int = 5
    rows: int = 150
    """Rows of the built-in texts that are read."""


class Setting(NamedTuple):
    """A loaded model with its SAEs, and what both ways of reading read."""

    model: nn.Module
    reader: ShardReader
    shards: list[Shard]
    batches: list[TokenBatch]
    """Those of the shards, on the device."""
    division: Division

    @property
    def tokens(self) -> int:
        """In all batches."""
        return sum(batch.tokens for batch in self.batches)

    def bare(self) -> None:
        """The forward pass alone."""
        for batch in self.batches:
            forward(self.model, batch.input_ids)

    def whole(self) -> None:
        """The harvest, with its files."""
        with TemporaryDirectory() as directory:
            store = ShardStore(Path(directory))
            for read in self.reader.read(ShardTask(shard, tuple(self.reader.probes)) for shard in self.shards):
                for layer, state in read.states.items():
                    store.write(layer, key_of(read.task.shard.digest()), pack_state(state))
            for layer in self.reader.probes:
                store.fold(layer, [key_of(shard.digest()) for shard in self.shards])


def setting(rows_read: int, device: torch.device) -> Setting:
    """Load the embedded model, its SAEs and the first of the built-in texts."""
    config = with_batch_tokens(make_config())
    inputs = find_inputs(config, NoProgress())
    deepest = max(inputs.saes).block
    placement = Placement(device, choose_dtype("auto", device))
    model = load_model(inputs.source.location, blocks=deepest + 1, placement=placement)
    drop_blocks_above(model, deepest)
    rows = list(islice(inputs.survey.select(inputs.corpus), rows_read))
    encoders = LoadedEncoders().of(inputs.saes, device)
    probes = {place: Probe(place, inputs.saes[place].target, own, math.inf) for place, own in encoders.items()}
    classes = torch.from_numpy(vocabulary_classes(inputs.cutter.tokenizer)).to(device)
    characters = shard_characters(sum(len(row.text) for row in rows))
    shards = list(cut_shards(rows, characters, len(inputs.survey.populations)))
    division = division_of(device)
    reader = ShardReader(Streams.of(model, division), probes, inputs.cutter, classes, config.tokens_per_batch)
    batches = [
        batch.to(device)
        for shard in shards
        for chunk in chunks(shard, inputs.cutter, device.type)
        for batch in pack_batches(chunk.sequences, config.tokens_per_batch, inputs.cutter.special_ids)
    ]
    return Setting(model, reader, shards, batches, division)


def timed(made: Setting, rounds: int) -> dict[str, list[float]]:
    """Name of a way of reading -> its seconds in each round, after a first that does not count."""
    seconds: dict[str, list[float]] = {"bare": [], "whole": []}
    with torch.inference_mode():
        made.bare()
        made.whole()
        for _ in range(rounds):
            for name, work in (("bare", made.bare), ("whole", made.whole)):
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main(options: Options) -> None:
    device = choose_device()
    made = setting(options.rows, device)
    seconds = timed(made, options.rounds)
    ratios = sorted(b / w for b, w in zip(seconds["bare"], seconds["whole"], strict=True))
    tokens, division = made.tokens, made.division
    print(
        f"{tokens:,} tokens, {len(made.reader.probes)} layers, {device}, {torch.get_num_threads()} threads "
        f"({division.streams} x {division.threads} in the harvest), {options.rounds} rounds"
    )
    print(f"bare forward pass {tokens / median(seconds['bare']):,.0f} tokens/s")
    print(f"whole harvest     {tokens / median(seconds['whole']):,.0f} tokens/s")
    print(f"ratio {median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f}); required {MIN_RATIO}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
