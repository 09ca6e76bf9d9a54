"""Does a feature stay silent where a word of the domain has another sense? Pairs of sentences tell.

What counts is the activation on the word itself: the other words of a sentence of the domain are of the domain too, and
a feature that fires on them alone would seem to tell the senses apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from stratalens.corpus.sense_pairs import SensePair, places_of
from stratalens.models import PassageCutter


class OtherSenses(NamedTuple):
    """On how many pairs a feature fires on the word in the domain's sense, and is silent on it in the other."""

    fired: int
    """Pairs in whose domain sentence it fires on the word."""
    silent: int
    """How many of these have another sentence in which it is silent on the word."""


class PairSentences(NamedTuple):
    """The sentences of pairs as the model reads them, the domain's sentence of each pair first."""

    sequences: list[np.ndarray]
    """Token ids, special tokens included."""
    of_word: list[Bool[np.ndarray, "seq"]]
    """Which tokens of each sentence are of the word."""


def pair_sentences(pairs: Sequence[SensePair], cutter: PassageCutter) -> PairSentences:
    """Cut the sentences of pairs; a pair is left out where a sentence is too short, or too long to hold its word."""
    found = PairSentences([], [])
    for pair in pairs:
        both = [_sentence(pair.word, sentence, cutter) for sentence in (pair.domain, pair.other)]
        if all(of_word.any() for _, of_word in both):
            for sequence, of_word in both:
                found.sequences.append(sequence)
                found.of_word.append(of_word)
    return found


def _sentence(word: str, sentence: str, cutter: PassageCutter) -> tuple[np.ndarray, Bool[np.ndarray, "seq"]]:
    """Token ids of a sentence, and which of them are of a word; none of a sentence that is too short."""
    spans = cutter.first_spans(sentence, 1)
    if not spans:
        return np.zeros(0, np.int64), np.zeros(0, bool)
    offsets = cutter.token_offsets(spans[0]) + spans[0].start
    of_word = np.zeros(len(offsets), bool)
    for start, end in places_of(word, sentence):
        of_word |= (offsets[:, 0] < end) & (offsets[:, 1] > start) & (offsets[:, 1] > offsets[:, 0])
    return cutter.sequence(spans[0]), of_word


def other_senses(maxima: Float[np.ndarray, "sentence feature"]) -> list[OtherSenses]:
    """Count, for each feature, the pairs in which it fires on the word, and those of them in which it then is silent.

    Args:
        maxima: maximum of each feature on the word in each sentence, in the order of `pair_sentences`.
    """
    fired, silent = maxima[0::2] > 0, maxima[1::2] == 0
    counts = zip(fired.sum(axis=0).tolist(), (fired & silent).sum(axis=0).tolist(), strict=True)
    return [OtherSenses(*own) for own in counts]
