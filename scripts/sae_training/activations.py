"""The vectors at hookpoints of a model, in shuffled batches."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice

import torch
from torch import Tensor

from sae_training.recipe import Recipe
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch
from stratalens.models.hooks import forward, hooked

SINK_RATIO = 10.0
"""A token whose vector has more than this many times the median norm is an attention sink and is left out."""
Vectors = dict[Hookpoint, Tensor]
"""Hookpoint -> `[token, d_model]`, the same tokens at every hookpoint."""


class Activations:
    """Vectors of the base model, without position 0, padding, special tokens and attention sinks."""

    def __init__(self, model: torch.nn.Module, hookpoints: Sequence[Hookpoint]):
        self.model, self.hookpoints = model, tuple(hookpoints)
        self.median_norm: dict[Hookpoint, float] = {}
        self.seen = self.kept = 0
        """Countable tokens that were read, and those of them that are no sinks."""

    def read(self, batch: TokenBatch) -> Vectors:
        """Run a batch; the vectors have the type of the model."""
        outputs: Vectors = {}
        keep = batch.countable.clone()

        def keep_output(hookpoint: Hookpoint, output: Tensor) -> None:
            norms = output.float().norm(dim=-1)
            median = self.median_norm.setdefault(hookpoint, float(norms[batch.countable].median()))
            keep.logical_and_(norms <= SINK_RATIO * median)
            outputs[hookpoint] = output.clone()

        with hooked(self.model, {place: partial(keep_output, place) for place in self.hookpoints}):
            forward(self.model, batch.input_ids)
        self.seen, self.kept = self.seen + int(batch.countable.sum()), self.kept + int(keep.sum())
        return {place: outputs[place][keep] for place in self.hookpoints}

    def shuffled(self, batches: Sequence[TokenBatch], recipe: Recipe) -> Iterator[Vectors]:
        """Yield batches of shuffled tokens without end."""
        if sum(batch.tokens for batch in batches) > recipe.buffer_tokens:
            return self._from_buffer(cycle(batches), recipe)
        return self._from_memory(batches, recipe)

    def _from_memory(self, batches: Sequence[TokenBatch], recipe: Recipe) -> Iterator[Vectors]:
        """All tokens are read once, and shuffled again in every round."""
        generator = torch.Generator().manual_seed(recipe.seed)
        read = [self.read(batch) for batch in batches]
        joined = {place: torch.cat([vectors.pop(place) for vectors in read]) for place in self.hookpoints}
        while True:
            order = torch.randperm(len(joined[self.hookpoints[0]]), generator=generator)
            for rows in islice(order.split(recipe.batch_tokens), max(1, len(order) // recipe.batch_tokens)):
                yield {place: joined[place][rows] for place in self.hookpoints}

    def _from_buffer(self, batches: Iterator[TokenBatch], recipe: Recipe) -> Iterator[Vectors]:
        """Half of a buffer is used, and filled again."""
        generator = torch.Generator().manual_seed(recipe.seed)
        pool: dict[Hookpoint, list[Tensor]] = {place: [] for place in self.hookpoints}
        pooled_tokens = 0
        for batch in batches:
            read = self.read(batch)
            for place in self.hookpoints:
                pool[place].append(read[place])
            pooled_tokens += len(read[self.hookpoints[0]])
            if pooled_tokens < recipe.buffer_tokens:
                continue
            order = torch.randperm(pooled_tokens, generator=generator)
            joined = {place: torch.cat(pool[place]) for place in self.hookpoints}
            drained = pooled_tokens // 2 // recipe.batch_tokens * recipe.batch_tokens
            for rows in order[:drained].split(recipe.batch_tokens):
                yield {place: joined[place][rows] for place in self.hookpoints}
            pool = {place: [joined[place][order[drained:]]] for place in self.hookpoints}
            pooled_tokens -= drained
