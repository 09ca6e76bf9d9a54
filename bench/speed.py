"""Speed of the complete harvest compared with the bare forward pass of the same model on the same batches.

They are timed in turn, the harvest once without and once with the token-level codes of all of the text. The model is
cut after the deepest analysed block.

python bench/speed.py [--rounds 5] [--rows 150]
"""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import tyro

from stratalens.config.validation import make_config
from stratalens.corpus.survey import DocumentRow
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.chunks import chunks
from stratalens.harvest.inputs import RunInputs, find_inputs
from stratalens.harvest.keep_plan import KEEP_NOTHING, KeepPlan
from stratalens.harvest.kept_codes import KeptLayer
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.shards import Shard, ShardTask, cut_shards, shard_characters
from stratalens.harvest.state.layer_state import pack_state
from stratalens.harvest.store import ShardStore, key_of
from stratalens.hookpoint import Hookpoint
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
"""Required speed of the harvest without codes, as a share of that of the bare forward pass."""
MAX_CODES_BYTES = 10**12
"""Every layer may keep so many bytes of codes: all of them."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int = 5
    rows: int = 150
    """Rows of the built-in texts that are read."""


def harvest(reader: ShardReader, shards: list[Shard], plan: KeepPlan) -> None:
    """Read shards for all layers and merge them, as a run does, with the codes that the plan keeps."""

    def fold(layer: Hookpoint) -> None:
        state = store.fold(layer, [key_of(shard.digest()) for shard in shards])
        if plan.documents:
            codes = [key_of("codes", shard.digest()) for shard in shards]
            KeptLayer(store, layer, codes, plan).write(Path(directory) / str(layer), "", state.examples)

    with TemporaryDirectory() as directory:
        store = ShardStore(Path(directory))
        for read in reader.read(ShardTask(shard, tuple(reader.probes)) for shard in shards):
            digest = read.task.shard.digest()
            for layer, codes in read.codes.items():
                store.write(layer, key_of("codes", digest), codes)
            for layer, state in read.states.items():
                store.write(layer, key_of(digest), pack_state(state))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fold, reader.probes))


def open_reader(rows: int) -> tuple[RunInputs, list[DocumentRow], ShardReader, str]:
    """Inputs of the embedded run, its first rows, what reads them, and how the device is divided."""
    config = with_batch_tokens(make_config())
    inputs, device = find_inputs(config, NoProgress()), choose_device()
    deepest = max(inputs.saes).block
    placement = Placement(device, choose_dtype("auto", device))
    model = load_model(inputs.source.location, blocks=deepest + 1, placement=placement)
    drop_blocks_above(model, deepest)
    encoders = LoadedEncoders().of(inputs.saes, device)
    probes = {place: Probe(place, inputs.saes[place].target, own, math.inf) for place, own in encoders.items()}
    classes = torch.from_numpy(vocabulary_classes(inputs.cutter.tokenizer)).to(device)
    division = division_of(device)
    reader = ShardReader(Streams.of(model, division), probes, inputs.cutter, classes, config.tokens_per_batch)
    divided = f"{device}, {torch.get_num_threads()} threads ({division.streams} x {division.threads} in the harvest)"
    return inputs, list(islice(inputs.survey.select(inputs.corpus), rows)), reader, divided


def timed(works: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round, after one that is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for work in works.values():
            work()
        for _ in range(rounds):
            for name, work in works.items():
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main(options: Options) -> None:
    inputs, rows, reader, divided = open_reader(options.rows)
    model, device = reader.streams.models[0], choose_device()
    characters = shard_characters(sum(len(row.text) for row in rows))
    sample = {document: place for place, document in enumerate(dict.fromkeys(row.document for row in rows))}
    plans = {
        "without codes": KEEP_NOTHING,
        "with codes": KeepPlan(sample, layer_bytes=dict.fromkeys(reader.probes, MAX_CODES_BYTES)),
    }
    populations = len(inputs.survey.populations)
    shards = {name: list(cut_shards(rows, characters, populations, plan)) for name, plan in plans.items()}
    batches = [
        batch.to(device)
        for shard in shards["without codes"]
        for chunk in chunks(shard, inputs.cutter, device.type)
        for batch in pack_batches(chunk.sequences, reader.batch_tokens, inputs.cutter.special_ids)
    ]
    tokens = sum(batch.tokens for batch in batches)

    def bare() -> None:
        for batch in batches:
            forward(model, batch.input_ids)

    works = {"bare": bare} | {name: partial(harvest, reader, shards[name], plan) for name, plan in plans.items()}
    seconds = timed(works, options.rounds)
    print(f"{tokens:,} tokens, {len(reader.probes)} layers, {divided}, {options.rounds} rounds")
    print(f"bare forward pass {tokens / median(seconds['bare']):,.0f} tokens/s")
    for name in plans:
        ratios = sorted(b / w for b, w in zip(seconds["bare"], seconds[name], strict=True))
        required = f"; required {MIN_RATIO}" if name == "without codes" else ""
        print(
            f"harvest {name} {tokens / median(seconds[name]):,.0f} tokens/s, "
            f"ratio {median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f}){required}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
