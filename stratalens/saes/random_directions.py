"""An SAE of the same shape as another one, whose latents are directions drawn at random: a control."""

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from stratalens.saes.sae import Sae, SaeFile
from stratalens.saes.steps import Centre, GluLinear, Linear, Rescale, Step, Subtract


def random_directions(sae: SaeFile, seed: int) -> SaeFile:
    """Describe the SAE of random directions that goes with another one.

    Its encoder and decoder rows have one random direction for each latent, uniform on the sphere, and the norms of the
    rows that they replace. Where the SAE reconstructs what it reads, the decoder bias is the centre from which encoder
    rows are turned: there every latent has the pre-activation that it had. Scales and activation stay. What such
    latents find of a domain is found by directions that nothing was learned for.

    Args:
        sae: the trained one.
        seed: of the directions.
    """
    digest = hashlib.sha256(f"random directions {seed} {sae.digest}".encode()).hexdigest()

    def load() -> Sae:
        return _redrawn(sae.load(), digest, centred=sae.hookpoint == sae.target)

    return replace(sae, digest=digest, load=load, load_encoder=None, load_decoder=None, bfloat16_encoder=False)


def _redrawn(sae: Sae, digest: str, *, centred: bool) -> Sae:
    centre = sae.decoder.bias if centred else torch.zeros(sae.d_model, device=sae.device)
    for step in sae.steps:
        if isinstance(step, Rescale):
            centre = centre * step.back
    steps = list[Step]()
    for step in sae.steps:
        if isinstance(step, Rescale):
            centre = centre * step.factor
        if isinstance(step, Centre):
            centre = centre - centre.mean()
        if isinstance(step, Subtract):
            centre = centre - step.vector
        steps.append(_turned(step, centre, digest))
    decoder = replace(sae.decoder, weight=_drawn(sae.decoder.weight.float(), digest))
    return replace(sae, steps=tuple(steps), decoder=decoder)


def _turned(step: Step, centre: Tensor, digest: str) -> Step:
    """A step with random directions in place of the rows of its products, turned around a centre."""
    if isinstance(step, GluLinear):
        return GluLinear(_turned(step.linear, centre, digest), _turned(step.gate, centre, digest))
    if not isinstance(step, Linear):
        return step
    before = step.weight.float()
    rows = _drawn(before, digest)
    return Linear.of(rows, step.bias + (before - rows) @ centre)


def _drawn(rows: Tensor, digest: str) -> Tensor:
    """Rows of these norms in random directions; rows of one width get the same directions."""
    generator = torch.Generator().manual_seed(int(digest[:15], 16))
    directions = torch.randn(rows.shape, generator=generator).to(rows.device, rows.dtype)
    return directions * (rows.norm(dim=1, keepdim=True) / directions.norm(dim=1, keepdim=True))
