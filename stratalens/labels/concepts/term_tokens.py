"""Which tokens of passages belong to a term of the domain's lexicon."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from stratalens.evidence.passages import Passage
from stratalens.labels.concepts.annotation import Units, split_units
from stratalens.labels.concepts.lexicon import Lexicon, Matches


def tokens_of_terms(passages: Sequence[Passage], lexicon: Lexicon) -> Bool[np.ndarray, "token"]:
    """Whether each token of the passages is part of a term of a concept that belongs to the domain."""
    units = split_units(passages)
    return tokens_of_matches(units, lexicon.find(units.words), lexicon)


def tokens_of_matches(units: Units, matches: Matches, lexicon: Lexicon) -> Bool[np.ndarray, "token"]:
    """The same for passages that are split and matched already.

    A token belongs to the word, number or mark that holds its last visible character.
    """
    specific = specific_matches(matches, lexicon)
    inside = np.zeros(len(units.words.texts) + 1, bool)  # the last one for tokens of no unit
    for first, last in zip(matches.first[specific].tolist(), matches.last[specific].tolist(), strict=True):
        inside[first : last + 1] = True
    return inside[units.of_token]


def specific_matches(matches: Matches, lexicon: Lexicon) -> Bool[np.ndarray, "match"]:
    """Which matches are of a concept that belongs to the domain."""
    return np.array([concept.specific for concept in lexicon.concepts], bool)[matches.concept]
