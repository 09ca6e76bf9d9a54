"""The logit lens: which tokens a feature's decoder row promotes and suppresses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratalens.errors import ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.families import FINAL_NORMS
from stratalens.models.hub import hub_errors
from stratalens.models.loading import Placement, load_model
from stratalens.models.source import ModelSource

TOKENS_SHOWN = 10
"""Tokens listed as promoted, and as suppressed, for each feature."""
BASELINE_DIRECTIONS = 512
"""About this many decoder rows of an SAE are used to compute the baseline logits of each token."""


NOT_FINITE = "the final norm or the unembedding gives logits that are not finite"


class TokenLogit(NamedTuple):
    """A token, and the logit that a feature's direction gives it."""

    token: str
    logit: float
    deviation: float
    """Standard deviations of the logit above the mean logit that the SAE's directions give this token."""


class FeatureLens(NamedTuple):
    """The tokens that a feature's decoder row makes more and less likely as the next token."""

    promoted: list[TokenLogit]
    """Highest deviation first."""
    suppressed: list[TokenLogit]
    """Lowest deviation first."""


@dataclass(frozen=True)
class Head:
    """Final norm and unembedding of a model."""

    norm: nn.Module
    unembedding: nn.Module

    @torch.inference_mode()
    def logits(self, directions: Float[Tensor, "feature d_model"]) -> Float[Tensor, "feature vocabulary"]:
        """Logits of directions, as if each were the whole residual stream (the logit lens, nostalgebraist 2020).

        Directions are scaled to the length sqrt(d_model) before the norm, so that its epsilon does not matter. The
        norm's output for a zero vector (the bias of a LayerNorm) is subtracted.
        """
        weight = next(self.unembedding.parameters())
        scaled = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12) * directions.shape[1] ** 0.5
        scaled = scaled.to(weight.device, weight.dtype)
        return self.unembedding(self.norm(scaled) - self.norm(torch.zeros_like(scaled[:1]))).float()


def load_head(source: ModelSource, device: torch.device, dtype: torch.dtype) -> Head:
    """Load the final norm and the unembedding of a model, without its blocks.

    Args:
        source: the model.
        device: where to put them.
        dtype: type of their weights.

    Raises:
        ModelError: the model cannot be loaded, it has no final norm of a known name or no unembedding, or
            its files hold no weights that fit one of the two.
    """
    with hub_errors(source.location, ModelError):
        model: Any = load_model(
            source.location,
            blocks=0,
            placement=Placement(device, dtype),
            revision=source.revision,
            trust_remote_code=source.trust_remote_code,
            head=True,
        )
    decoder = model.get_decoder()
    norm = next((getattr(decoder, name) for name in FINAL_NORMS if hasattr(decoder, name)), None)
    unembedding = model.get_output_embeddings()
    if norm is None:
        raise ModelError(f"{source.name}: no final norm of a known name ({', '.join(FINAL_NORMS)})")
    if unembedding is None:
        raise ModelError(f"{source.name}: has no unembedding")
    return Head(norm.to(device).eval(), unembedding.to(device).eval())


def try_lens(source: ModelSource, device: torch.device, dtype: torch.dtype) -> None:
    """Load the head and try it on a few directions.

    Args:
        source: the model.
        device: where to put the head.
        dtype: type of its weights.

    Raises:
        ModelError: the model has no head that can be loaded, or a logit is not finite.
    """
    if not torch.isfinite(load_head(source, device, dtype).logits(torch.eye(2, source.d_model))).all():
        raise ModelError(NOT_FINITE)


class Baseline(NamedTuple):
    """Mean and deviation of each token's logit over an SAE's directions; rare tokens have extreme logits in any."""

    mean: Float[Tensor, "vocabulary"]
    deviation: Float[Tensor, "vocabulary"]


def baseline(head: Head, directions: Float[Tensor, "latent d_model"]) -> Baseline:
    """Compute the baseline from about `BASELINE_DIRECTIONS` evenly spaced decoder rows of an SAE, in float64 sums.

    Sums are on the CPU: mps has no float64.
    """
    sample = directions[:: max(1, len(directions) // BASELINE_DIRECTIONS)]
    count = len(sample)
    total = squares = torch.zeros(())
    for rows in sample.split(64):
        logits = head.logits(rows.float()).cpu().double()
        total, squares = total + logits.sum(0), squares + logits.square().sum(0)
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=1e-6)
    return Baseline(mean.float(), variance.sqrt().float())


def feature_lenses(
    head: Head,
    directions: Float[Tensor, "latent d_model"],
    features: Sequence[int],
    decode: Callable[[list[int]], str],
) -> list[FeatureLens]:
    """Find the tokens that each feature promotes and suppresses most, by deviation from the SAE's baseline.

    Args:
        head: final norm and unembedding.
        directions: all decoder rows of the SAE.
        features: latents of the SAE.
        decode: gives the text of token ids.

    Raises:
        ModelError: a logit is not finite.
    """
    base = baseline(head, directions)
    lenses = []
    for logits in head.logits(directions[list(features)].float()).cpu() if features else []:
        deviation = (logits - base.mean) / base.deviation
        if not deviation.isfinite().all():
            raise ModelError(NOT_FINITE)

        def token_logits(
            indices: list[int], logits: Tensor = logits, deviation: Tensor = deviation
        ) -> list[TokenLogit]:
            return [
                TokenLogit(decode([token]), round(float(logits[token]), 4), round(float(deviation[token]), 3))
                for token in indices
            ]

        high, low = (deviation.topk(TOKENS_SHOWN, largest=largest).indices.tolist() for largest in (True, False))
        lenses.append(FeatureLens(token_logits(high), token_logits(low)))
    return lenses


def layer_lenses(
    source: ModelSource,
    directions: Callable[[Hookpoint], Float[Tensor, "latent d_model"]],
    features: Mapping[Hookpoint, Sequence[int]],
    decode: Callable[[list[int]], str],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[Hookpoint, list[FeatureLens]]:
    """Compute the logit lens of every reported feature; the head is loaded only where there are features.

    Args:
        source: the model; only its final norm and unembedding are loaded.
        directions: gives the decoder rows of a layer's SAE.
        features: hookpoint -> reported features.
        decode: gives the text of token ids.
        device: where to compute.
        dtype: type of the weights.

    Raises:
        ModelError: the model has no head that can be loaded, or a logit is not finite.
    """
    if not features:
        return {}
    head = load_head(source, device, dtype)
    return {
        hookpoint: feature_lenses(head, directions(hookpoint), numbers, decode)
        for hookpoint, numbers in features.items()
    }
