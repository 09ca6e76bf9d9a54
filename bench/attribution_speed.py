"""Cost of attribution compared with the harvest of the same text, both for all layers of the embedded model.

The two are timed in turn. The harvest reads with the model cut after the deepest analysed block, attribution with the
whole one and its head.

python bench/attribution_speed.py [--rounds 3] [--rows 60] [--ig_steps 5]
"""

import math
import time
from dataclasses import dataclass
from itertools import islice
from statistics import median

import torch
import tyro

from stratalens.config.validation import make_config
from stratalens.effects.attribution import AttributionReader, CountedBatch
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.chunks import chunks
from stratalens.harvest.inputs import find_inputs
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.shards import ShardTask, cut_shards, shard_characters
from stratalens.models import load_model
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.loading import Placement, choose_device, choose_dtype
from stratalens.models.streams import Streams, division_of
from stratalens.models.token_classes import vocabulary_classes
from stratalens.progress import NoProgress
from stratalens.saes.probe import Probe

MAX_RATIO = 3.0
"""Highest cost of attribution to the confirmation documents, as a multiple of that of the harvest of all documents."""
CONFIRMATION_SHARE = 0.5
"""Share of the documents that confirm."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int = 3
    rows: int = 60
    """Rows of the built-in texts that are read."""
    ig_steps: int | None = None
    """Integrated gradients in place of the gradient."""


def predicted(batch: TokenBatch) -> CountedBatch:
    """All tokens after one that is countable."""
    counted = torch.zeros_like(batch.countable)
    real = torch.arange(counted.shape[1]) < torch.from_numpy(batch.lengths)[:, None]
    counted[:, 1:] = batch.countable[:, :-1] & real[:, 1:]
    return CountedBatch(batch, counted)


def main(options: Options) -> None:
    config = with_batch_tokens(make_config())
    inputs = find_inputs(config, NoProgress())
    device = choose_device()
    placement = Placement(device, choose_dtype("auto", device))
    cut = load_model(inputs.source.location, blocks=max(inputs.saes).block + 1, placement=placement)
    whole = load_model(inputs.source.location, blocks=None, head=True, placement=placement)
    probes = [Probe(place, own.target, own.load().on(device), math.inf) for place, own in inputs.saes.items()]
    rows = list(islice(inputs.survey.select(inputs.corpus), options.rows))
    characters = shard_characters(sum(len(row.text) for row in rows))
    shards = list(cut_shards(rows, characters, len(inputs.survey.populations)))
    division = division_of(device)
    classes = torch.from_numpy(vocabulary_classes(inputs.cutter.tokenizer)).to(device)
    by_place = {probe.hookpoint: probe for probe in probes}
    reader = ShardReader(Streams.of(cut, division), by_place, inputs.cutter, classes, config.tokens_per_batch)
    tokens = config.tokens_per_batch // division.streams
    batches = [
        predicted(batch)
        for shard in shards
        for chunk in chunks(shard, inputs.cutter, device.type)
        for batch in pack_batches(chunk.sequences, tokens, inputs.cutter.special_ids)
    ]
    attribution = AttributionReader(Streams.of(whole, division), probes, BatchRunner(tokens), options.ig_steps)

    def harvest() -> None:
        for _ in reader.read(ShardTask(shard, tuple(by_place)) for shard in shards):
            pass

    def attribute() -> None:
        for one in range(0, len(batches), 8):
            attribution.read(batches[one : one + 8])

    seconds: dict[str, list[tuple[float, float]]] = {"harvest": [], "attribution": []}
    with torch.inference_mode():
        for number in range(options.rounds + 1):
            for name, work in (("harvest", harvest), ("attribution", attribute)):
                started = time.perf_counter(), time.process_time()
                work()
                if number:
                    seconds[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    total = sum(one.batch.tokens for one in batches)
    steps = "the gradient" if options.ig_steps is None else f"{options.ig_steps} steps of integrated gradients"
    print(f"{total:,} tokens, {len(probes)} layers, {device}, {division.streams} x {division.threads} threads, {steps}")
    for name, of_name in seconds.items():
        print(f"{name} {total / median(wall for wall, _ in of_name):,.0f} tokens/s")
    for clock, name in enumerate(("time", "processor time (of use on a busy machine)")):
        pairs = zip(seconds["attribution"], seconds["harvest"], strict=True)
        ratios = sorted(attributed[clock] / read[clock] for attributed, read in pairs)
        print(f"{name}: {median(ratios):.2f} times the harvest of the same text ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"  of half of it, which confirms: {CONFIRMATION_SHARE * median(ratios):.2f} times; required {MAX_RATIO}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
