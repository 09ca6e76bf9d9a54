"""Speed of a compiled forward pass against the plain one, in turn, and what compiling costs.

The model is cut after the deepest analysed block; batches have many shapes, as in a run. Needs a C++ compiler.

python bench/compiled.py [--rows 120] [--rounds 2]
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import tyro
from speed import open_reader

from stratalens.harvest.chunks import chunks
from stratalens.harvest.shards import cut_shards, shard_characters
from stratalens.models.batches import TokenBatch, pack_batches


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rows: int = 120
    """Rows of the built-in texts that are read."""
    rounds: int = 2


def seconds(run: Callable[..., object], batches: Sequence[TokenBatch]) -> float:
    """Time of a forward pass over all batches."""
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            run(input_ids=batch.input_ids, use_cache=False)
    return time.perf_counter() - started


def main(options: Options) -> None:
    inputs, rows, reader, divided = open_reader(options.rows)
    model, cutter = reader.streams.models[0], inputs.cutter
    shards = cut_shards(rows, shard_characters(sum(len(row.text) for row in rows)), len(inputs.survey.populations))
    passages = [chunk.sequences for shard in shards for chunk in chunks(shard, cutter, "cpu")]
    batches = [batch for own in passages for batch in pack_batches(own, reader.batch_tokens, cutter.special_ids)]
    compiled = torch.compile(model, dynamic=True)
    seconds(model, batches)
    first = seconds(compiled, batches)
    print(f"{sum(batch.tokens for batch in batches):,} tokens, {divided}; first compiled pass {first:.0f} s")
    for _ in range(options.rounds):
        plain, own = seconds(model, batches), seconds(compiled, batches)
        print(f"plain {plain:.1f} s, compiled {own:.1f} s: {plain / own:.2f} times as fast")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
