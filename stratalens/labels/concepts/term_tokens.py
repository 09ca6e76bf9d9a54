"""Which tokens of passages belong to a term of the domain's lexicon."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from stratalens.evidence.passages import Passage
from stratalens.labels.concepts.annotation import split_units
from stratalens.labels.concepts.lexicon import Lexicon


def tokens_of_terms(passages: Sequence[Passage], lexicon: Lexicon) -> Bool[np.ndarray, "token"]:
    """Whether each token of the passages is part of a term of a concept that belongs to the domain."""
    units = split_units(passages)
    matches = lexicon.find(units.words)
    specific = np.array([concept.specific for concept in lexicon.concepts], bool)[matches.concept]
    inside = np.zeros(len(units.words.texts) + 1, bool)  # the last one for tokens of no unit
    for first, last in zip(matches.first[specific].tolist(), matches.last[specific].tolist(), strict=True):
        inside[first : last + 1] = True
    return inside[units.of_token]
