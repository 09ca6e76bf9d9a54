"""The tokens with the largest shares of a feature's activation."""

from typing import NamedTuple

import numpy as np

from stratalens.evidence.evidence import Evidence
from stratalens.hookpoint import Hookpoint

TOP_TOKENS = 12
"""Tokens listed for each feature, at most."""


class TopToken(NamedTuple):
    """A token with a large share of a feature's activation."""

    token: str
    """Its text, without white space around it."""
    share: float
    """Its share of the feature's activation."""
    background: float
    """Its share of all tokens."""


def top_tokens(evidence: Evidence, hookpoint: Hookpoint) -> list[list[TopToken]]:
    """Find for each feature of a layer the tokens with the largest shares of its activation, largest first."""
    texts = np.array(
        [
            passage.text[start:stop].strip() or "white space"
            for passage in evidence.passages
            for start, stop in passage.offsets
        ]
    )
    vocabulary, index = np.unique(texts, return_inverse=True)
    background = np.bincount(index) / max(1, len(index))
    tokens_of_features = []
    for column in range(len(evidence.layers[hookpoint].features)):
        token, activation = evidence.layers[hookpoint].entries(column)
        mass = np.bincount(index[token], activation, len(vocabulary))
        share = mass / max(1e-12, float(mass.sum()))
        best = np.argsort(-share, kind="stable")[:TOP_TOKENS]
        tokens_of_features.append(
            [TopToken(str(vocabulary[at]), float(share[at]), float(background[at])) for at in best if share[at] > 0]
        )
    return tokens_of_features
