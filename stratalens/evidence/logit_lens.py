"""The logit lens: which tokens a feature's decoder row promotes and suppresses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratalens.errors import ModelError
from stratalens.models.families import FINAL_NORMS
from stratalens.models.hub import hub_errors, quiet_transformers
from stratalens.models.source import ModelSource

TOKENS_SHOWN = 10
BASELINE_DIRECTIONS = 512
"""Directions of an SAE, about, from which the usual logits of each token come."""


class TokenLogit(NamedTuple):
    """A token and what a feature's direction does to its logit."""

    token: str
    logit: float
    deviation: float
    """How many standard deviations the logit lies above what the SAE's other directions give this token."""


class FeatureLens(NamedTuple):
    """What a feature's decoder row does to the prediction of the next token."""

    promoted: list[TokenLogit]
    suppressed: list[TokenLogit]


@dataclass(frozen=True)
class Head:
    """Final norm and unembedding of a model."""

    norm: nn.Module
    unembedding: nn.Module

    @torch.inference_mode()
    def logits(self, directions: Float[Tensor, "feature d_model"]) -> Float[Tensor, "feature vocabulary"]:
        """Logits of directions of the residual stream, as if each stood there alone (nostalgebraist 2020).

        The norm sees them at a length of the square root of d_model, where its epsilon does not matter. What it
        gives to a zero vector (the bias of a LayerNorm) is taken off.
        """
        weight = next(self.unembedding.parameters())
        scaled = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12) * directions.shape[1] ** 0.5
        scaled = scaled.to(weight.device, weight.dtype)
        return self.unembedding(self.norm(scaled) - self.norm(torch.zeros_like(scaled[:1]))).float()


def load_head(source: ModelSource, device: torch.device, dtype: torch.dtype) -> Head | None:
    """Load a model without any of its blocks; None where its final norm goes by an unknown name."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with hub_errors(source.location, ModelError), quiet_transformers():
        origin = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
        config = AutoConfig.from_pretrained(source.location, **origin)
        text = config.get_text_config()
        text.num_hidden_layers = 0
        if getattr(text, "layer_types", None):
            text.layer_types = []
        model = AutoModelForCausalLM.from_pretrained(source.location, config=config, dtype=dtype, **origin)
    decoder = model.get_decoder()
    norm = next((getattr(decoder, name) for name in FINAL_NORMS if hasattr(decoder, name)), None)
    unembedding = model.get_output_embeddings()
    if norm is None or unembedding is None:
        return None
    return Head(norm.to(device).eval(), unembedding.to(device).eval())


class Baseline(NamedTuple):
    """Logits that the directions of one SAE give each token: rare tokens lie far out whatever the direction."""

    mean: Float[Tensor, "vocabulary"]
    deviation: Float[Tensor, "vocabulary"]


def baseline(head: Head, directions: Float[Tensor, "latent d_model"]) -> Baseline:
    """Mean and standard deviation of each token's logit over evenly spaced directions of an SAE."""
    sample = directions[:: max(1, len(directions) // BASELINE_DIRECTIONS)]
    count = len(sample)
    total = squares = torch.zeros(())
    for rows in sample.split(64):
        logits = head.logits(rows).double()
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
    """The tokens that each feature promotes and suppresses most, by how far it stands out from the SAE's directions."""
    usual = baseline(head, directions)
    lenses = []
    for logits in head.logits(directions[list(features)]) if features else []:
        deviation = (logits - usual.mean) / usual.deviation

        def named(indices: list[int], logits: Tensor = logits, deviation: Tensor = deviation) -> list[TokenLogit]:
            return [
                TokenLogit(decode([token]), round(float(logits[token]), 4), round(float(deviation[token]), 3))
                for token in indices
            ]

        high, low = (deviation.topk(TOKENS_SHOWN, largest=largest).indices.tolist() for largest in (True, False))
        lenses.append(FeatureLens(named(high), named(low)))
    return lenses


def layer_lenses(
    source: ModelSource,
    directions: Callable[[int], Float[Tensor, "latent d_model"]],
    features: Mapping[int, Sequence[int]],
    decode: Callable[[list[int]], str],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[int, list[FeatureLens]] | None:
    """The lens of every reported feature; None for a model without a known head.

    Args:
        source: the model, of which only final norm and unembedding are loaded.
        directions: gives the decoder rows of a layer's SAE.
        features: layer -> reported features.
        decode: text of token ids.
        device: where to compute.
        dtype: of the unembedding.
    """
    head = load_head(source, device, dtype)
    return head and {
        layer: feature_lenses(head, directions(layer), numbers, decode) for layer, numbers in features.items()
    }
