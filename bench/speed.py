"""Speed of the complete harvest compared with the bare forward pass of the same model on the same batches.

The two are timed in turn. The model is cut after the deepest analysed block.

python bench/speed.py [--rounds 5] [--rows 150]
"""

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import tyro

from stratalens.config.validation import make_config
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.chunks import chunks
from stratalens.harvest.inputs import find_inputs
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.shards import ShardTask, cut_shards, shard_characters
from stratalens.harvest.state.layer_state import pack_state
from stratalens.harvest.store import ShardStore, key_of
from stratalens.models import load_model
from stratalens.models.batches import pack_batches
from stratalens.models.hooks import drop_blocks_above, forward
from stratalens.models.loading import Placement, choose_device, choose_dtype
from stratalens.models.streams import Streams, division_of
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


def main(options: Options) -> None:
    config = with_batch_tokens(make_config())
    inputs = find_inputs(config, NoProgress())
    device = choose_device()
    deepest = max(inputs.saes).block
    model = load_model(
        inputs.source.location, blocks=deepest + 1, placement=Placement(device, choose_dtype("auto", device))
    )
    drop_blocks_above(model, deepest)
    rows = list(islice(inputs.survey.select(inputs.corpus), options.rows))
    encoders = LoadedEncoders().of(inputs.saes, device)
    probes = {place: Probe(place, inputs.saes[place].target, own, math.inf) for place, own in encoders.items()}
    classes = torch.from_numpy(vocabulary_classes(inputs.cutter.tokenizer)).to(device)
    shards = list(
        cut_shards(rows, shard_characters(sum(len(row.text) for row in rows)), len(inputs.survey.populations))
    )
    division = division_of(device)
    streams = Streams.of(model, division)
    reader = ShardReader(streams, probes, inputs.cutter, classes, config.tokens_per_batch)
    batches = [
        batch.to(device)
        for shard in shards
        for chunk in chunks(shard, inputs.cutter, device.type)
        for batch in pack_batches(chunk.sequences, config.tokens_per_batch, inputs.cutter.special_ids)
    ]
    tokens = sum(batch.tokens for batch in batches)

    def bare() -> None:
        for batch in batches:
            forward(model, batch.input_ids)

    def whole() -> None:
        with TemporaryDirectory() as directory:
            store = ShardStore(Path(directory))
            for read in reader.read(ShardTask(shard, tuple(probes)) for shard in shards):
                for layer, state in read.states.items():
                    store.write(layer, key_of(read.task.shard.digest()), pack_state(state))
            for layer in probes:
                store.fold(layer, [key_of(shard.digest()) for shard in shards])

    seconds: dict[str, list[float]] = {"bare": [], "whole": []}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        bare()
        whole()
        for _ in range(options.rounds):
            for name, work in (("bare", bare), ("whole", whole)):
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
    ratios = sorted(b / w for b, w in zip(seconds["bare"], seconds["whole"], strict=True))
    print(
        f"{tokens:,} tokens, {len(probes)} layers, {device}, {torch.get_num_threads()} threads "
        f"({division.streams} x {division.threads} in the harvest), {options.rounds} rounds"
    )
    print(f"bare forward pass {tokens / median(seconds['bare']):,.0f} tokens/s")
    print(f"whole harvest     {tokens / median(seconds['whole']):,.0f} tokens/s")
    print(f"ratio {median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f}); required {MIN_RATIO}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
