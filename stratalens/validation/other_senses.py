"""Does a feature stay silent where a word of the domain has another sense? Pairs of sentences tell."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stratalens.corpus.sense_pairs import SensePair
from stratalens.models import PassageCutter


class OtherSenses(NamedTuple):
    """On how many pairs a feature fires in the domain's sense, and stays silent in the other."""

    fired: int
    """Pairs on whose domain sentence it fires."""
    silent: int
    """How many of these have another sentence on which it is silent."""


def pair_sequences(pairs: Sequence[SensePair], cutter: PassageCutter) -> list[np.ndarray]:
    """Token ids of both sentences of each pair, the domain's first; a pair with a sentence too short is left out."""
    sequences: list[np.ndarray] = []
    for pair in pairs:
        spans = [cutter.first_spans(sentence, 1) for sentence in (pair.domain, pair.other)]
        if all(spans):
            sequences += [cutter.sequence(own[0]) for own in spans]
    return sequences


def other_senses(maxima: Float[np.ndarray, "sentence feature"]) -> list[OtherSenses]:
    """Count, for each feature, the pairs on which it fires and those of them on whose other sentence it is silent.

    Args:
        maxima: maximum of each feature on each sentence, in the order of `pair_sequences`.
    """
    fired, silent = maxima[0::2] > 0, maxima[1::2] == 0
    counts = zip(fired.sum(axis=0).tolist(), (fired & silent).sum(axis=0).tolist(), strict=True)
    return [OtherSenses(*own) for own in counts]
