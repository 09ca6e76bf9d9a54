"""What removing latents changes on documents: next-token loss, KL divergence, and the norm that was removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

TOKEN_CLASSES = ("term", "after_term", "rest")
"""Classes of predicted tokens: in a term of the domain's lexicon, right after one, and all others; a domain without a
lexicon has the last one only."""


@dataclass(frozen=True)
class EffectDocuments:
    """The documents on which effects are measured: the unit of every interval."""

    hashes: UInt64[np.ndarray, "document"]
    """64-bit hash that identifies each."""
    domain: Bool[np.ndarray, "document"]
    """Whether it is of the domain, and not general."""
    tokens: Int[np.ndarray, "document token_class"]
    """Predicted tokens of each class that count; every document has at least one."""
    control: Bool[np.ndarray, "document"]
    """Whether controls are measured on it: a fixed subsample, the documents of the smallest hashes of each side."""

    @cached_property
    def total(self) -> Int[np.ndarray, "document"]:
        """Predicted tokens of each document."""
        return self.tokens.sum(1)


class Change(NamedTuple):
    """What one ablation changes: sums over the predicted tokens of each document, in float64.

    A control has numbers for the documents of the subsample only, and nan for all others. A document on which nothing
    is removed has exactly 0 everywhere.
    """

    loss: Float[np.ndarray, "document token_class"]
    """Next-token loss after less before, in nats."""
    kl: Float[np.ndarray, "document token_class"]
    """KL divergence of the next-token distribution before from the one after, in nats."""
    norm: Float[np.ndarray, "document"]
    """Euclidean norms of what is removed, one a position."""

    def loss_per_token(self, documents: EffectDocuments) -> Float[np.ndarray, "document"]:
        """Mean change of the loss of each document, in nats a token."""
        return self.loss.sum(1) / documents.total


@dataclass(frozen=True)
class LayerChanges:
    """What removing all confirmed features of a hookpoint together changes, and what its controls change."""

    features: tuple[int, ...]
    own: Change
    random: Sequence[Change]
    """Of random directions with the norm that the features remove at each token, one a draw."""
    matched: Sequence[Change]
    """Of sets of other live latents that remove about the same norm on each side."""


@dataclass(frozen=True)
class FeatureChanges:
    """What removing one feature changes, what its controls change, and what its gradient predicts."""

    feature: int
    own: Change
    random: Sequence[Change]
    """Of random directions with the norm that the feature removes at each token, one a draw."""
    attribution: Float[np.ndarray, "document"]
    """Change of the sum of losses that the gradient predicts, in nats."""
