"""What is left of a feature when the terms of the domain's lexicon are replaced: the reverse of the token test."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stratalens.corpus import Half, Side
from stratalens.evidence import Evidence
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint
from stratalens.validation.frequencies import FrequencyBins

MAX_MASKED_PASSAGES = 128


class Terms(NamedTuple):
    """Where the terms of a lexicon are in the evidence, which tells it by itself nothing about them."""

    of_term: Bool[np.ndarray, "token"]
    """Whether each token of the evidence is part of a term."""
    sampled_texts: frozenset[int]
    """Hashes of the texts that were sampled, and not chosen because a feature fires on them."""


class MaskedPassages(NamedTuple):
    """Domain passages with other tokens in the place of terms."""

    numbers: Int[np.ndarray, "masked"]
    """Index of each among the passages of the evidence."""
    sequences: list[np.ndarray]
    """Token ids of each, special tokens included, with random tokens in the place of terms."""


NOTHING_MASKED = MaskedPassages(np.zeros(0, np.int64), [])


def mask_terms(
    evidence: Evidence, terms: Terms, half: Half, frequencies: tuple[np.ndarray, Int[np.ndarray, "token"]], seed: int
) -> MaskedPassages:
    """Replace each token of a term, in sampled domain passages, by a random one as frequent that is in no term.

    Args:
        evidence: passages, token by token.
        terms: where the terms are.
        half: whose passages are taken, at most `MAX_MASKED_PASSAGES` of those with terms.
        frequencies: counts of general text by token id, and the ids that may be drawn.
        seed: chooses passages and tokens.
    """
    counts, allowed = frequencies
    starts = evidence.starts
    all_ids = np.concatenate([passage.token_ids for passage in evidence.passages])
    in_no_term = np.setdiff1d(allowed, all_ids[terms.of_term])
    if not len(in_no_term):
        return NOTHING_MASKED
    bins = FrequencyBins.of(counts, in_no_term)
    chosen = [
        number
        for number, passage in enumerate(evidence.passages)
        if passage.side == Side.DOMAIN
        and passage.half == half
        and passage.location.content in terms.sampled_texts
        and terms.of_term[starts[number] : starts[number + 1]].any()
    ]
    chosen.sort(key=lambda number: hash64(seed, "masked", *evidence.passages[number].location))
    numbers = sorted(chosen[:MAX_MASKED_PASSAGES])
    sequences = []
    for number in numbers:
        passage = evidence.passages[number]
        masked = passage.token_ids.astype(np.int64)
        inside = terms.of_term[starts[number] : starts[number + 1]]
        rng = np.random.default_rng(hash64(seed, "mask", *passage.location))
        masked[inside] = bins.draw_like(masked[inside].tolist(), rng)
        sequences.append(masked)
    return MaskedPassages(np.array(numbers, np.int64), sequences)


def share_kept(
    evidence: Evidence, hookpoint: Hookpoint, numbers: Int[np.ndarray, "masked"], maxima: Float[np.ndarray, "masked n"]
) -> list[float | None]:
    """The share of each feature's activation that is kept: the sum of its maxima on masked passages over that before.

    Args:
        evidence: what the features do on the passages as they are.
        hookpoint: of the features.
        numbers: the passages.
        maxima: maximum of each feature on each masked passage.

    Returns:
        For each feature, None where it is silent on these passages.
    """
    before = evidence.maxima(hookpoint)[numbers].astype(np.float64).sum(axis=0)
    after = maxima.astype(np.float64).sum(axis=0)
    return [float(kept / all_of_it) if all_of_it > 0 else None for kept, all_of_it in zip(after, before, strict=True)]
