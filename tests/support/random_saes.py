"""SAEs of each kind with random weights for the tiny model, and loss and removal written out in another way."""

import math
from collections.abc import Callable

import torch
from tiny import TINY_LATENTS, TINY_WIDTH
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch
from stratalens.models.hooks import differentiable_forward, hooked
from stratalens.saes.activations import Gated, SparseLatents, Threshold, TopK
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Decoder, Sae
from stratalens.saes.steps import Centre, Linear, Normalise, Rescale, Subtract

RESID, OTHER_RESID = Hookpoint(1), Hookpoint(2)
MLP_NORM, MLP = Hookpoint(1, "mlp_norm"), Hookpoint(1, "mlp")


def random_probe(kind: str, seed: int = 0, norm_limit: float = math.inf) -> Probe[Sae]:
    """A probe of a kind of `KINDS`: three that reconstruct the residual stream, and a transcoder of an MLP."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    rows = normal(TINY_LATENTS, TINY_WIDTH)
    linear = Linear.of(normal(TINY_LATENTS, TINY_WIDTH) / TINY_WIDTH**0.5, 0.1 * normal(TINY_LATENTS))
    decoder = Decoder(0.3 * rows / rows.norm(dim=1, keepdim=True), normal(TINY_WIDTH))
    half = torch.full((TINY_LATENTS,), 0.5)
    steps, activation = {
        "topk": ((Subtract(0.1 * normal(TINY_WIDTH)), linear), TopK(8)),
        "threshold": ((Normalise(True), Centre(), linear), Threshold.of(half)),
        "gated": ((Rescale(0.5, 2.0), linear), Gated(-half, half.exp(), 0.1 * normal(TINY_LATENTS))),
        "transcoder": ((linear,), Threshold.relu(TINY_LATENTS)),
    }[kind]
    if kind == "transcoder":
        decoder = Decoder(decoder.weight, decoder.bias, skip=0.1 * normal(TINY_WIDTH, TINY_WIDTH), scale=half)
    places = (MLP_NORM, MLP) if kind == "transcoder" else (RESID, RESID)
    return Probe(*places, Sae(TINY_WIDTH, steps, activation, decoder), norm_limit)


KINDS = ("topk", "threshold", "gated", "transcoder")


def losses(model: nn.Module, batch: TokenBatch, counted: Tensor) -> Tensor:
    """Sum of the losses of the counted tokens of each row, in nats."""
    logits = differentiable_forward(model, batch.input_ids).logits[:, :-1]
    each = cross_entropy(logits.transpose(1, 2), batch.input_ids[:, 1:], reduction="none")
    return (each * counted[:, 1:]).sum(1)


def read(model: nn.Module, probe: Probe[Sae], batch: TokenBatch) -> tuple[Tensor, SparseLatents, Tensor]:
    """Vectors that an SAE reads, its latents at the positions that count, and which these are."""
    taken = list[Tensor]()
    with torch.no_grad(), hooked(model, {probe.hookpoint: lambda x: taken.append(x.clone())}):
        differentiable_forward(model, batch.input_ids)
    keep = batch.countable & (taken[0].norm(dim=-1) <= probe.norm_limit)
    return taken[0], probe.sae.encode(taken[0][keep]), keep


def losses_with_latents(
    model: nn.Module,
    probe: Probe[Sae],
    batch: TokenBatch,
    counted: Tensor,
    change: Callable[[SparseLatents], SparseLatents],
) -> Tensor:
    """Losses with other latents in place of an SAE's own: what it decodes them to, and its error term."""
    x, latents, keep = read(model, probe, batch)

    def put(vectors: Tensor) -> Tensor:
        error = vectors[keep] - probe.sae.decode(latents, x[keep])
        new = vectors.clone()
        new[keep] = (probe.sae.decode(change(latents), x[keep]) + error).to(vectors.dtype)
        return new

    with hooked(model, {probe.target: put}):
        return losses(model, batch, counted)
