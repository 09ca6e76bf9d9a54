"""Whether the general side speaks of the domain: features of the domain then seem to belong to both sides."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stratalens.corpus.populations import Side
from stratalens.corpus.text_sample import SampledText
from stratalens.corpus.words import UnitKind, Words
from stratalens.labels.concepts.lexicon import Lexicon

MAX_SHARE = 0.05
"""A larger share of general texts that speak of the domain is told."""
DOMAIN_QUANTILE = 0.25
"""A general text speaks of the domain if it uses the lexicon's terms more densely than this share of domain texts."""
MIN_TEXTS = 20


def domain_speech_warnings(sides: tuple[Sequence[SampledText], Sequence[SampledText]], lexicon: Lexicon) -> list[str]:
    """Warning that many general texts use the terms of the domain as densely as domain texts do.

    Args:
        sides: sampled texts of each side.
        lexicon: concepts of the domain and others, which do not count.
    """
    share = domain_speech(sides, lexicon)
    if share is None or share <= MAX_SHARE:
        return []
    return [
        f"{share:.0%} of the general texts speak of the domain, by the terms of its lexicon: features of the domain "
        "then seem to belong to both sides; leave such texts out of the general side"
    ]


def domain_speech(sides: tuple[Sequence[SampledText], Sequence[SampledText]], lexicon: Lexicon) -> float | None:
    """Share of general texts that use the terms of the domain as densely as most domain texts do.

    Args:
        sides, lexicon: as in `domain_speech_warnings`.

    Returns:
        None with too few texts, or where the domain's own texts hardly use the lexicon.
    """
    if min(map(len, sides)) < MIN_TEXTS:
        return None
    domain, general = (_density([text.text for text in sides[side]], lexicon) for side in Side)
    least = float(np.quantile(domain, DOMAIN_QUANTILE))
    return float((general >= least).mean()) if least > 0 else None


def _density(texts: Sequence[str], lexicon: Lexicon) -> Float[np.ndarray, "text"]:
    """Share of the words of each text that belong to a term of the domain."""
    words = Words.of(texts)
    matches = lexicon.find(words)
    covered = np.zeros(len(words.kind), bool)
    specific = np.array([lexicon.is_specific(int(concept)) for concept in matches.concept], bool)
    for first, last in zip(matches.first[specific], matches.last[specific], strict=True):
        covered[first : last + 1] = True
    is_word = words.kind == UnitKind.WORD
    totals = np.bincount(words.passage[is_word], minlength=len(texts))
    return np.bincount(words.passage[is_word & covered], minlength=len(texts)) / np.maximum(totals, 1)
