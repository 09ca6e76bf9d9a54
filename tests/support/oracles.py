"""Compare latents with those of the library that wrote the checkpoint, on real activations."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from stratalens.corpus.builtin import text_file
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import pack_batches
from stratalens.models.hooks import forward, hooked
from stratalens.models.loading import Placement, load_model
from stratalens.models.tokens import PassageCutter
from stratalens.saes.activations import SparseLatents
from stratalens.saes.sae import Encoder
from stratalens.saes.steps import Linear

ROUNDING = 32 * torch.finfo(torch.float32).eps


def real_activations(
    model: Path, tokenizer, hookpoints: Iterable[Hookpoint], step: int = 500
) -> dict[Hookpoint, Tensor]:
    """Hookpoint -> vectors of the embedded model in bfloat16, at every position of some texts, sinks included.

    Args:
        model: the embedded model.
        tokenizer: its own.
        hookpoints: where to read.
        step: of so many built-in texts, one is read.
    """
    lines = [
        line
        for side in ("financial", "general")
        for line in text_file(side).read_text(encoding="utf-8").splitlines()[::step]
    ]
    cutter = PassageCutter(tokenizer, 128)
    sequences = [cutter.sequence(cutter.first_spans(json.loads(line)["text"], 1)[0]) for line in lines]
    hookpoints = list(hookpoints)
    blocks = max(hookpoint.block for hookpoint in hookpoints) + 1
    loaded = load_model(model, blocks=blocks, placement=Placement(torch.device("cpu"), torch.bfloat16))
    taken: dict[Hookpoint, list[Tensor]] = {hookpoint: [] for hookpoint in hookpoints}
    for batch in pack_batches(sequences, 2048, ()):
        real = torch.arange(batch.input_ids.shape[1]) < torch.from_numpy(batch.lengths)[:, None]
        consumers = {place: lambda out, own=own, real=real: own.append(out[real]) for place, own in taken.items()}
        with torch.inference_mode(), hooked(loaded, consumers):
            forward(loaded, batch.input_ids)
    return {hookpoint: torch.cat(parts).clone() for hookpoint, parts in taken.items()}


def dense(latents: SparseLatents, tokens: int, width: int) -> Tensor:
    """Latents with zeros where none fires."""
    found = torch.zeros(tokens, width)
    found[latents.token, latents.latent] = latents.value
    return found


def sparse(latents: Tensor) -> SparseLatents:
    """Dense latents of an oracle, as this package has them."""
    token, latent = (latents > 0).nonzero(as_tuple=True)
    return SparseLatents(token, latent, latents[token, latent].float())


def assert_same_latents(
    ours: Encoder, x: Tensor, theirs: Tensor, *, precision: float = ROUNDING, most_ties: float = 1e-3
) -> None:
    """Latents agree but for rounding; a latent within rounding of its threshold, or of the last of k, may differ.

    Args:
        ours: the encoder to judge.
        x: real activations, `[token, d_model]`.
        theirs: dense latents of the oracle, `[token, latent]`.
        precision: relative to the largest latent of a token, or to the lengths of vector and row that are multiplied.
        most_ties: share of the firing latents that may differ.
    """
    latents = ours.encode(x)
    assert latents.value.dtype == torch.float32
    assert bool((latents.value > 0).all())
    assert bool((latents.token.diff() >= 0).all())
    found = dense(latents, len(x), ours.num_latents)
    theirs = theirs.detach().float()
    fires = theirs > 0
    assert 0.0005 < fires.double().mean() < 0.9, "the comparison shows something"
    differs = (found > 0) != fires
    assert differs.sum() <= most_ties * fires.sum(), f"{int(differs.sum())} of {int(fires.sum())} latents"
    both = (found > 0) & fires
    scale = torch.maximum(theirs.amax(dim=1), lengths(ours, x))[:, None].clamp(min=1e-30)
    error = ((found - theirs).abs() / scale)[both]
    assert float(error.max()) <= precision, f"largest error {float(error.max()):.2g}"


def lengths(ours: Encoder, x: Tensor) -> Tensor:
    """Length of each vector times that of the longest row: float32 sums of their products round in proportion.

    0 where the product is of another kind.
    """
    for step in ours.steps:
        if isinstance(step, Linear):
            return x.float().norm(dim=1) * step.weight.float().norm(dim=1).max()
        x = step(x)
    return torch.zeros(len(x))


def assert_same_vectors(ours: Tensor, theirs: Tensor, precision: float = 1e-5) -> None:
    """Reconstructions agree relative to their lengths."""
    theirs = theirs.detach().float()
    error = (ours - theirs).norm(dim=1) / theirs.norm(dim=1)
    assert float(error.max()) <= precision, f"largest error {float(error.max()):.2g}"
