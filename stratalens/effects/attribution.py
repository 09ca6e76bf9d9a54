"""What the gradient predicts for the loss when a latent is removed, for all latents of all hookpoints at once.

The attribution of latent f to a text is -sum_t a_f(t) s(t) <g(t), W_f>: activation, unit scale and decoder row are the
contribution that is removed, and g is the gradient of the sum of next-token losses with respect to the vectors that it
is removed from (gradient times activation: Simonyan et al. 2013; for latents of an SAE, with its error term kept, Marks
et al. 2024, "Sparse feature circuits"). With integrated gradients (Sundararajan et al. 2017), g is the mean of the
gradients on the path on which all latents of one hookpoint are scaled from 0 to their values together: then the
attributions of all latents sum up to the change of the loss when all are removed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stratalens.effects.attributions import Attributions, joined
from stratalens.errors import ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import BatchRunner, TokenBatch
from stratalens.models.hooks import differentiable_forward, hooked
from stratalens.models.streams import Streams
from stratalens.progress import Advance
from stratalens.saes.activations import SparseLatents
from stratalens.saes.contributions import contribution, unit_scale
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

GRADIENT_SCALE = 256.0
"""Losses are multiplied by this before gradients flow back, and gradients divided by it: in float16 small ones would
vanish. A power of two, which changes no bit in the other types."""
MAX_LOGITS = 2**24
"""At most this many logits are in memory in float32 at once."""
MAX_GATHERED = 2**24
"""At most this many components of decoder rows are gathered at once."""


class CountedBatch(NamedTuple):
    """Passages, and the tokens whose losses are summed up."""

    batch: TokenBatch
    counted: Bool[Tensor, "batch seq"]
    """Whether each token is predicted and counts: its loss is read from the logits one position before it."""

    def of(self, part: TokenBatch) -> Bool[Tensor, "part seq"]:
        """The mask of some of its rows."""
        place = {int(row): number for number, row in enumerate(self.batch.rows)}
        return self.counted[[place[int(row)] for row in part.rows], : part.input_ids.shape[1]]


@dataclass(frozen=True)
class AttributionReader:
    """Reads passages for the attributions of all latents of some SAEs.

    It may be called in inference mode. The model must be loaded outside: weights made in it have no use for gradients.
    """

    streams: Streams
    """Run the whole model with its head on batches."""
    probes: Sequence[Probe[Sae]]
    """The SAEs, their encoders on the device where batches are read."""
    runner: BatchRunner
    """Halves batches that do not fit into memory."""
    ig_steps: int | None = None
    """Points of the path of integrated gradients, at the middles of equal pieces; None for the gradient at the end of
    the path, the model as it is."""
    on_batch: Advance = lambda _passages, _tokens: None
    """Called with the numbers of passages and tokens of each finished batch."""

    def read(self, batches: Iterable[CountedBatch]) -> dict[Hookpoint, Attributions]:
        """Read passages; return hookpoint -> attributions to each passage.

        A gradient takes one forward and one backward pass for all SAEs; integrated gradients take one of each for each
        SAE and step. A table takes 24 bytes for each passage and latent that fires on it: for much text, read some
        documents at a time and add up their `AttributionSums`.

        Args:
            batches: the passages, no passage twice.

        Raises:
            CapacityError: a single passage does not fit into memory.
            ModelError: a gradient is not finite, or the model has no such hookpoint.
        """
        assert not any(own.is_inference() for own in self.streams.models[0].parameters()), "made in inference mode"
        parts: dict[Hookpoint, list[Attributions]] = {probe.hookpoint: [] for probe in self.probes}
        with self.streams.open() as start:
            started = [(one.batch, start(partial(self._read, one))) for one in batches]
            for batch, wait in started:
                for found in wait():
                    for hookpoint, own in found.items():
                        parts[hookpoint].append(own)
                self.on_batch(len(batch.rows), batch.tokens)
        return {hookpoint: joined(own) for hookpoint, own in parts.items()}

    def _read(self, one: CountedBatch, model: nn.Module) -> list[dict[Hookpoint, Attributions]]:
        def work(part: TokenBatch) -> dict[Hookpoint, Attributions]:
            device = self.probes[0].sae.device
            with torch.inference_mode(False), torch.enable_grad():
                reading = _BatchReading(model, part.to(device), one.of(part).to(device))
                return reading.by_gradient(self.probes) if self.ig_steps is None else self._by_path(reading)

        return list(self.runner.run(one.batch, work))

    def _by_path(self, reading: "_BatchReading") -> dict[Hookpoint, Attributions]:
        assert self.ig_steps is not None
        return {probe.hookpoint: reading.by_path(probe, self.ig_steps) for probe in self.probes}


class _Encoded(NamedTuple):
    """The latents of one SAE on a batch."""

    keep: Bool[Tensor, "batch seq"]
    """Positions that count."""
    latents: SparseLatents
    """Of these positions."""
    scale: Float[Tensor, "token"]
    """Of a decoder row at each of these positions."""


@dataclass
class _BatchReading:
    """One batch, its latents as soon as they are read, and the gradients that are asked for."""

    model: nn.Module
    batch: TokenBatch
    counted: Bool[Tensor, "batch seq"]
    encoded: dict[Hookpoint, _Encoded] = field(default_factory=dict)

    def by_gradient(self, probes: Sequence[Probe[Sae]]) -> dict[Hookpoint, Attributions]:
        """Attributions by the gradient of the model as it is."""
        gradients = self._gradients(probes, removed=0.0)
        return {probe.hookpoint: self._attributions(probe, gradients[probe.target]) for probe in probes}

    def by_path(self, probe: Probe[Sae], steps: int) -> Attributions:
        """Attributions by integrated gradients, with the midpoint rule."""
        removed = [1 - (step + 0.5) / steps for step in range(steps)]
        total = sum(self._gradients([probe], share)[probe.target] / steps for share in removed)
        assert isinstance(total, Tensor)
        return self._attributions(probe, total)

    def _gradients(self, probes: Sequence[Probe[Sae]], removed: float) -> dict[Hookpoint, Tensor]:
        """Gradients in float32 with respect to what SAEs reconstruct; of a single one a share may be removed before."""
        targets = {probe.target for probe in probes}
        deltas: dict[Hookpoint, Tensor] = {}

        def receive(place: Hookpoint, vectors: Float[Tensor, "batch seq width"]) -> Tensor | None:
            with torch.no_grad():
                for probe in probes:
                    if probe.hookpoint == place and place not in self.encoded:
                        self.encoded[place] = self._encode(probe, vectors)
            if place not in targets:
                return None
            deltas[place] = torch.zeros_like(vectors, requires_grad=True)
            if removed:
                (only,) = probes
                vectors = vectors - removed * self._contributed(only, vectors)
            return vectors.to(deltas[place].dtype) + deltas[place]

        places = targets.union(probe.hookpoint for probe in probes)
        with hooked(self.model, {place: partial(receive, place) for place in places}):
            logits = differentiable_forward(self.model, self.batch.input_ids).logits
        ahead = _loss_gradient(logits.detach(), self.batch.input_ids, self.counted)
        gradients = torch.autograd.grad(logits, list(deltas.values()), ahead)
        return {place: own.float() / GRADIENT_SCALE for place, own in zip(deltas, gradients, strict=True)}

    def _encode(self, probe: Probe[Sae], vectors: Float[Tensor, "batch seq d_model"]) -> _Encoded:
        hidden, _, keep = probe.read(self.batch, vectors.detach())
        x = hidden[keep]
        return _Encoded(keep, probe.sae.encode(x), unit_scale(probe.sae, x))

    @torch.no_grad()
    def _contributed(
        self, probe: Probe[Sae], vectors: Float[Tensor, "batch seq width"]
    ) -> Float[Tensor, "batch seq width"]:
        """Sum of the contributions of all latents of an SAE to the vectors that it reconstructs, in float32."""
        keep, latents, scale = self.encoded[probe.hookpoint]
        numbers = latents.latent.unique()
        rows = probe.sae.decoder.rows(numbers.to(probe.sae.decoder.weight.device), keep.device)
        total = torch.zeros(vectors.shape, device=vectors.device)
        own = contribution(latents, rows, numbers, len(scale)) * scale[:, None]
        total[keep.to(total.device)] = own.to(total.device)
        return total

    @torch.no_grad()
    def _attributions(self, probe: Probe[Sae], gradient: Float[Tensor, "batch seq width"]) -> Attributions:
        """Attributions of all latents of an SAE, given the gradient with respect to what it reconstructs."""
        keep, latents, scale = self.encoded[probe.hookpoint]
        at = gradient.to(keep.device)[keep] * scale[:, None]
        if not bool(torch.isfinite(at).all()):
            raise ModelError(
                f"the gradients at layer {probe.target} are not finite on some of the text; use --dtype float32 or "
                "bfloat16, and no --load_in 8bit"
            )
        order = latents.latent.argsort(stable=True)  # so that each row of the decoder is copied once
        by_latent = SparseLatents(*(column[order] for column in latents))
        value = -by_latent.value * _products(probe.sae, by_latent, at)
        row = keep.nonzero()[:, 0][by_latent.token]
        rows, numbers, values = (part.cpu().numpy() for part in (row, by_latent.latent, value))
        return joined([Attributions(self.batch.rows[rows], numbers, values.astype(np.float64))])


def _products(sae: Sae, latents: SparseLatents, gradient: Float[Tensor, "token width"]) -> Float[Tensor, "entry"]:
    """Product of each entry's decoder row with the gradient at its token.

    Args:
        sae: the SAE.
        latents: entries in the order of latents.
        gradient: at each token, in float32.
    """
    size = max(1, MAX_GATHERED // gradient.shape[1])
    products = [gradient.new_zeros(0)]
    for token, latent in zip(latents.token.split(size), latents.latent.split(size), strict=True):
        used, index = latent.unique_consecutive(return_inverse=True)
        rows = sae.decoder.rows(used.to(sae.decoder.weight.device), gradient.device)
        products.append((rows[index] * gradient[token]).sum(1))
    return torch.cat(products)


def _loss_gradient(
    logits: Float[Tensor, "batch seq vocabulary"],
    input_ids: Int[Tensor, "batch seq"],
    counted: Bool[Tensor, "batch seq"],
) -> Float[Tensor, "batch seq vocabulary"]:
    """Gradient of the sum of next-token losses with respect to logits, times `GRADIENT_SCALE`.

    It is the predicted distribution less 1 at the token that comes; written out, it needs no copy of all logits in
    float32.
    """
    ids, counted = input_ids.to(logits.device), counted.to(logits.device)
    row, position = counted[:, 1:].nonzero(as_tuple=True)
    gradient = torch.zeros_like(logits)
    size = max(1, MAX_LOGITS // logits.shape[-1])
    for rows, positions in zip(row.split(size), position.split(size), strict=True):
        change = logits[rows, positions].float().softmax(-1)
        change[torch.arange(len(rows), device=rows.device), ids[rows, positions + 1]] -= 1
        gradient[rows, positions] = (change * GRADIENT_SCALE).to(gradient.dtype)
    return gradient
