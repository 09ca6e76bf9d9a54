"""Small TopK SAEs of any hookpoints of a model, trained within a minute on the built-in texts: for benches and tests.

They are far worse than shipped ones, and belong to their hookpoint all the same.
"""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, GENERAL, text_file
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.hooks import forward, hooked
from stratalens.models.tokens import PassageCutter

BATCH_TOKENS = 2048
SINK_RATIO = 10.0
"""A token whose norm exceeds this many times the median is an attention sink and is left out."""
BATCH = 1024
RATE = 2e-3


def built_in_passages(cutter: PassageCutter, held_out: bool) -> list[np.ndarray]:
    """The first passage of each built-in text of one half of them, drawn by hash, in the order of hashes.

    Args:
        cutter: cuts the texts.
        held_out: whether the half that no small SAE was trained on.
    """
    rows = [
        json.loads(line)["text"]
        for name in (*BUILT_IN_DOMAINS, GENERAL)
        for line in text_file(name).read_text(encoding="utf-8").splitlines()
    ]
    own = sorted({hash64("small", text): text for text in rows}.items())
    texts = [text for number, text in own if bool(number & 1) == held_out]
    return [cutter.sequence(span) for text in texts for span in cutter.first_spans(text, 1)]


def passage_batches(cutter: PassageCutter, held_out: bool, passages: int | None = None) -> list[TokenBatch]:
    """Batches of the first passages of `built_in_passages`."""
    sequences = list(islice(built_in_passages(cutter, held_out), passages))
    return list(pack_batches(sequences, BATCH_TOKENS, cutter.special_ids))


def activations(
    model: nn.Module, batches: Iterable[TokenBatch], hookpoints: Sequence[Hookpoint]
) -> dict[Hookpoint, Float[Tensor, "token width"]]:
    """Vectors at some hookpoints at the countable positions, without attention sinks, in bfloat16."""
    read: dict[Hookpoint, list[Tensor]] = {hookpoint: [] for hookpoint in hookpoints}

    def keep(hookpoint: Hookpoint, batch: TokenBatch, vectors: Tensor) -> None:
        own = vectors[batch.countable]
        norms = own.float().norm(dim=1)
        read[hookpoint].append(own[norms <= SINK_RATIO * norms.median()].bfloat16())

    for batch in batches:
        with hooked(model, {hookpoint: partial(keep, hookpoint, batch) for hookpoint in hookpoints}):
            forward(model, batch.input_ids)
    return {hookpoint: torch.cat(parts) for hookpoint, parts in read.items()}


def train_topk(
    x: Float[Tensor, "token width"], num_latents: int, k: int, steps: int, seed: int = 0
) -> dict[str, Tensor]:
    """Train a TopK SAE; return its tensors as sparsify names them.

    Args:
        x: the vectors.
        num_latents: how many latents.
        k: how many of them fire on a token.
        steps: optimiser steps of `BATCH` tokens each.
        seed: of the first weights and the order of tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    bias = x.float().mean(0)
    scale = (x.float() - bias).pow(2).mean().sqrt()
    first = (x[torch.randperm(len(x), generator=generator)[:num_latents]].float() - bias) / scale
    first = first + 0.1 * torch.randn(first.shape, generator=generator)
    first = first / first.norm(dim=1, keepdim=True)
    encoder, decoder, offset, shift = (
        nn.Parameter(tensor)
        for tensor in (first.clone(), first.clone(), torch.zeros(num_latents), torch.zeros(len(bias)))
    )
    optimiser = torch.optim.Adam([encoder, decoder, offset, shift], lr=RATE, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, 3 * (steps - step) / steps)
        own = (x[torch.randint(len(x), (BATCH,), generator=generator)].float() - bias) / scale
        pre = (own - shift) @ encoder.T + offset
        values, latents = pre.topk(k, dim=1)
        reconstruction = torch.nn.functional.embedding_bag(
            latents, decoder, per_sample_weights=values.relu(), mode="sum"
        )
        loss = (own - reconstruction - shift).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        norms = decoder.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return {
            "encoder.weight": (encoder * norms).contiguous(),
            "encoder.bias": offset * norms[:, 0] * scale,
            "W_dec": (decoder / norms).contiguous(),
            "b_dec": bias + scale * shift,
        }


def write_small_saes(
    model: nn.Module, cutter: PassageCutter, hookpoints: Sequence[Hookpoint], root: Path, **options: int
) -> dict[Hookpoint, Path]:
    """Train an SAE of each hookpoint and write it in sparsify's format.

    Returns:
        Hookpoint -> directory of its checkpoint.
    """
    recipe = {"num_latents": 1152, "k": 32, "steps": 300} | options
    read = activations(model, passage_batches(cutter, held_out=False), hookpoints)
    written = {}
    for hookpoint, x in read.items():
        folder = root / f"at_{hookpoint}"
        folder.mkdir(parents=True, exist_ok=True)
        save_file(train_topk(x, **recipe), folder / "sae.safetensors")
        config = {"activation": "topk", "num_latents": recipe["num_latents"], "k": recipe["k"], "d_in": x.shape[1]}
        (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
        written[hookpoint] = folder
    return written
