"""What latents contribute to the vectors that an SAE reconstructs, in the units of these vectors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from stratalens.saes.activations import SparseLatents
from stratalens.saes.sae import Sae
from stratalens.saes.steps import Centre, Normalise, Rescale


def unit_scale(sae: Sae, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token"]:
    """What a decoder row is multiplied by at each token, so that it is in the units of the reconstructed vectors.

    It undoes the scalings of the input as `Sae.decode` does: all are linear in the reconstruction, so each latent's
    contribution is scaled like the whole.

    Args:
        sae: the SAE.
        x: the vectors that are encoded.
    """
    factor, read = torch.ones(len(x), device=x.device), x
    for step in sae.steps:
        if isinstance(step, Normalise | Rescale | Centre):
            factor = factor * step.undo_scale(read)[:, 0]
            read = step(read)
    return factor


def only_latents(latents: SparseLatents, chosen: Int[Tensor, "column"]) -> SparseLatents:
    """The entries of some latents."""
    return SparseLatents(*(part[torch.isin(latents.latent, chosen)] for part in latents))


def contribution(
    latents: SparseLatents, rows: Float[Tensor, "row d_out"], numbers: Int[Tensor, "row"], tokens: int
) -> Float[Tensor, "token d_out"]:
    """Sum over latents of activation times row, at each token; in float32, without any bias.

    Args:
        latents: entries of latents in `numbers` only.
        rows: of the decoder, or what takes their place.
        numbers: latent of each row, rising.
        tokens: number of tokens.
    """
    row = torch.searchsorted(numbers, latents.latent)
    starts = torch.searchsorted(latents.token, torch.arange(tokens, device=latents.token.device))
    return embedding_bag(row, rows, starts, per_sample_weights=latents.value, mode="sum")


def decoder_rows(sae: Sae, latents: Sequence[int], device: torch.device) -> Float[Tensor, "row d_out"]:
    """Decoder rows of some latents, in float32 on a device, before `unit_scale`."""
    numbers = torch.tensor(list(latents), dtype=torch.long, device=sae.decoder.weight.device)
    return sae.decoder.rows(numbers, device)
