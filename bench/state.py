"""Size of the state of a wide SAE, and the time to make, write, read and merge it. No model is run.

python bench/state.py [--latents 131072] [--shards 8] [--chunks 8]
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import tyro

from stratalens.corpus import Populations
from stratalens.harvest import FeatureStats
from stratalens.harvest.chunks import CHUNK_TOKENS
from stratalens.harvest.state.document_sample import DocumentSample, SampledPassages
from stratalens.harvest.state.layer_state import (
    LayerState,
    fold,
    pack_state,
    unpack_state,
)
from stratalens.harvest.state.passage_values import PassageValues
from stratalens.harvest.state.top_examples import PassagePointers, TopExamples
from stratalens.models.threads import in_threads
from stratalens.models.token_classes import TOKEN_CLASSES

Value = TypeVar("Value")


@dataclass(frozen=True)
class Options:
    """What to simulate."""

    latents: int = 131_072
    k: int = 32
    """Latents that fire on each token."""
    passage_tokens: int = 256
    d_model: int = 4096
    chunks: int = 8
    """Chunks of 16,384 tokens per shard."""
    shards: int = 8


def timed(work: Callable[[], Value]) -> tuple[float, Value]:
    started = time.perf_counter()
    value = work()
    return time.perf_counter() - started, value


def passage_values(options: Options, rng: np.random.Generator) -> PassageValues:
    """Simulate the values of one chunk; a power law makes a few latents fire often and the others rarely."""
    passages = CHUNK_TOKENS // options.passage_tokens
    fired = (options.latents * rng.power(0.35, (passages, options.passage_tokens * options.k))).astype(np.int64)
    cells, positions = np.unique(fired + options.latents * np.arange(passages)[:, None], return_counts=True)
    mean = rng.lognormal(-3, 1, len(cells)).astype(np.float32)
    return PassageValues(
        population=rng.integers(0, len(Populations()), passages),
        tokens=np.full(passages, options.passage_tokens),
        countable_positions=np.full(passages, options.passage_tokens - 1),
        kept_positions=np.full(passages, options.passage_tokens - 1),
        norm_sum=rng.gamma(5, size=passages).astype(np.float32),
        residual_mean=rng.normal(size=(passages, options.d_model)).astype(np.float32),
        passage=cells // options.latents,
        latent=cells % options.latents,
        mean=mean,
        maximum=mean * 50,
        positions_fired=positions,
        class_mass=mean[:, None] * np.full(len(TOKEN_CLASSES), 0.2, np.float32),
        early_mass=mean * np.float32(0.1),
    )


def chunk_state(values: PassageValues, rng: np.random.Generator, sampled: bool) -> LayerState:
    passages = len(values.population)
    start = np.arange(passages) * 1000
    pointers = PassagePointers(rng.integers(0, 2**64, passages, dtype=np.uint64), start, start + 1000)
    documents = SampledPassages(rng.integers(0, 2**64, passages, dtype=np.uint64), np.full(passages, sampled))
    return LayerState(
        FeatureStats.of(values, len(Populations())),
        TopExamples.of(values, pointers),
        DocumentSample.of(values, documents),
    )


def bytes_of(state: LayerState) -> dict[str, int]:
    """Part of the state -> its size in memory."""
    parts = {"stats": state.stats, "examples": state.examples, "documents": state.documents}
    sizes = {}
    for name, part in parts.items():
        columns = [getattr(part, field.name) for field in fields(part)]
        arrays = [column if isinstance(column, np.ndarray) else column.data for column in columns]
        sizes[name] = sum(array.nbytes for array in arrays)
    return sizes


def layers_beside_each_other(options: Options, layers: int = 4) -> None:
    """Time the statistics of a chunk for several layers, merged into what was read before, in a loop and in threads."""
    values = [passage_values(options, np.random.default_rng(layer)) for layer in range(layers)]
    before = [chunk_state(own, np.random.default_rng(0), sampled=True) for own in values]

    def add(layer: int) -> LayerState:
        return fold([before[layer], chunk_state(values[layer], np.random.default_rng(0), sampled=False)])

    threads = torch.get_num_threads()
    seconds = {
        number: min(timed(partial(in_threads, add, range(layers), number))[0] for _ in range(3))
        for number in (1, threads)
    }
    print(
        f"a chunk of {layers} layers made and merged: {seconds[1]:.2f} s one layer after the other, "
        f"{seconds[threads]:.2f} s in {threads} threads"
    )


def main(options: Options) -> None:
    rng = np.random.default_rng(0)
    values = passage_values(options, rng)
    statistics_seconds, state = timed(lambda: chunk_state(values, rng, sampled=True))
    print(f"one layer of {options.latents:,} latents, {options.k} per token")
    print(
        f"a chunk of {CHUNK_TOKENS:,} tokens: {len(values.latent):,} entries, {statistics_seconds:.2f} s of statistics"
    )
    layers_beside_each_other(options)
    packed: list[bytes] = []
    for number in range(options.shards):
        chunks = [chunk_state(passage_values(options, rng), rng, sampled=number == 0) for _ in range(options.chunks)]
        seconds, state = timed(partial(fold, chunks))
        packing, body = timed(partial(pack_state, state))
        packed.append(body)
        if number in (0, options.shards - 1):
            print(
                f"shard {number}: {options.chunks} chunks folded in {seconds:.2f} s, {len(state.stats.latents):,} live "
                f"latents, packed in {packing:.2f} s into {len(body) / 1e6:,.0f} MB"
            )
    unpacking, _ = timed(lambda: unpack_state(packed[-1]))
    folding, state = timed(lambda: fold(map(unpack_state, packed)))
    sizes = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in bytes_of(state).items())
    print(f"a shard read in {unpacking:.2f} s; {options.shards} shards read and merged in {folding:.2f} s")
    print(f"merged state: {len(state.stats.latents):,} live latents; {sizes}; {len(pack_state(state)) / 1e6:,.0f} MB")
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
