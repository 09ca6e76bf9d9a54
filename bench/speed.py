"""Whole harvest against the bare forward pass of the same truncated model on the same batches, interleaved.

python bench/speed.py [--rounds 5] [--tokens 40000]
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import tyro

from stratalens.config import make_config
from stratalens.harvest.open_model import prepare
from stratalens.harvest.shard_reader import LayerProbe, ShardReader, chunks
from stratalens.harvest.shards import cut_shards, shard_characters
from stratalens.harvest.state.layer_state import pack as pack_state
from stratalens.harvest.store import ShardStore, key_of
from stratalens.models.loading import (
    choose_device,
    choose_dtype,
    cut,
    forward,
    load_model,
)
from stratalens.models.token_classes import vocabulary_classes
from stratalens.models.tokens import pack
from stratalens.progress import Silence

REQUIRED = 0.82


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int = 5
    rows: int = 150


def main(options: Options) -> None:
    config = make_config()
    ready = prepare(config, Silence())
    device = choose_device()
    deepest = max(ready.saes)
    model = load_model(ready.source.location, blocks=deepest + 1, device=device, dtype=choose_dtype("auto", device))
    cut(model, ready.saes[deepest].hookpoint)
    rows = list(islice(ready.survey.select(ready.corpus), options.rows))
    probes = {layer: LayerProbe(layer, sae.load().to(device), float("inf")) for layer, sae in ready.saes.items()}
    classes = torch.from_numpy(vocabulary_classes(ready.cutter.tokenizer)).to(device)
    shards = list(cut_shards(rows, shard_characters(sum(len(row.text) for row in rows))))
    reader = ShardReader(model, probes, ready.cutter, classes, config.batch_tokens)
    batches = [
        batch.to(device)
        for shard in shards
        for chunk in chunks(shard, ready.cutter)
        for batch in pack(chunk.sequences, config.batch_tokens, ready.cutter.special_ids)
    ]
    tokens = sum(batch.tokens for batch in batches)

    def bare() -> None:
        for batch in batches:
            forward(model, batch.input_ids)

    def whole() -> None:
        with TemporaryDirectory() as directory:
            store = ShardStore(Path(directory))
            for shard in shards:
                for layer, state in reader.read(shard, tuple(probes)).items():
                    store.write(layer, key_of(shard.digest()), pack_state(state))
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
        f"{tokens:,} tokens, {len(probes)} layers, {device}, {torch.get_num_threads()} threads, {options.rounds} rounds"
    )
    print(f"bare forward pass {tokens / median(seconds['bare']):,.0f} tokens/s")
    print(f"whole harvest     {tokens / median(seconds['whole']):,.0f} tokens/s")
    print(f"ratio {median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f}); required {REQUIRED}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
