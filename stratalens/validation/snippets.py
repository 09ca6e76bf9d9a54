"""The short pieces of text of the token test: general ones to paste into, and those on which a feature fires."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from stratalens.corpus import Half, Side
from stratalens.errors import CorpusError, counted
from stratalens.evidence.evidence import Evidence
from stratalens.evidence.passages import CANDIDATE_SPANS, Passage, sample_texts
from stratalens.files.hashing import hash64
from stratalens.harvest.inputs import RunInputs
from stratalens.hookpoint import Hookpoint
from stratalens.validation.frequencies import FrequencyBins
from stratalens.validation.ngrams import Ngram, Ngrams

SNIPPET_TOKENS = 32
MIN_SNIPPET_TOKENS = 16
"""A text that is shorter than a snippet is taken as it is if it has so many tokens."""
CONTROLS = 256
"""Snippets with random tokens, shared by all features. With fewer an effect of 0 cannot be told from one of 0.5."""
PASTED = 64
"""Snippets into which the n-grams of a feature are pasted; so many different ones are needed."""
OWN_WINDOWS = 8
"""At most so many windows of a feature's own passages are read alone."""
PEAK_AT = 28
"""Index of the peak in a window of `SNIPPET_TOKENS`, in its last quarter, where the passage allows it."""

Tokens = Int[np.ndarray, "seq"]
Frame = Callable[[Sequence[int]], Tokens]
"""Puts token ids between the special tokens that the tokenizer adds to a text."""


class _Window(NamedTuple):
    document: int
    order: int
    token_ids: tuple[int, ...]


def general_snippets(inputs: RunInputs, seed: int) -> list[Tokens]:
    """Windows of general documents of the confirmation half, one a document while there are enough of them.

    Args:
        inputs: the text of a run; where nothing was held back, all of it.
        seed: chooses among documents and windows.

    Returns:
        At most `CONTROLS` different windows, without special tokens.

    Raises:
        CorpusError: there are too few, or a file cannot be read any more.
    """
    survey, cutter = inputs.survey, inputs.cutter
    half = Half.CONFIRMATION if survey.split else Half.DISCOVERY
    own = np.isin(survey.membership, survey.populations.where(side=Side.GENERAL, half=half))
    texts = sample_texts(survey, seed, CONTROLS).intersection(survey.content[own].tolist())
    windows = []
    for row in survey.select(inputs.corpus, texts):
        spans = [span.token_ids for span in cutter.first_spans(row.text, CANDIDATE_SPANS)]
        for at, token_ids in enumerate(_windows(spans, cutter.special_ids)):
            windows.append(_Window(row.document, hash64(seed, "snippet", row.content, at), token_ids))
    chosen = [np.array(token_ids, np.int64) for token_ids in _one_a_document(windows)]
    if len(chosen) < PASTED:
        raise CorpusError(
            f"{counted(len(chosen), 'snippet')} of {SNIPPET_TOKENS} tokens in the general text that is held back, and "
            f"at least {PASTED} are needed; give more or longer general texts"
        )
    return chosen


def _windows(spans: Sequence[Sequence[int]], special_ids: frozenset[int]) -> list[tuple[int, ...]]:
    """Cut runs of tokens into windows without special tokens; a text without a whole window is one if long enough."""
    cuts = [span[at : at + SNIPPET_TOKENS] for span in spans for at in range(0, len(span), SNIPPET_TOKENS)]
    whole = [cut for cut in cuts if len(cut) == SNIPPET_TOKENS] or cuts[:1]
    return [tuple(cut) for cut in whole if len(cut) >= MIN_SNIPPET_TOKENS and special_ids.isdisjoint(cut)]


def _one_a_document(windows: Sequence[_Window]) -> list[tuple[int, ...]]:
    """Different windows in random order: first one of each document, then the second ones, and so on."""
    taken: dict[int, int] = {}
    rounds: list[tuple[int, int, tuple[int, ...]]] = []
    for document, order, token_ids in sorted(windows, key=lambda window: window.order):
        taken[document] = taken.get(document, -1) + 1
        rounds.append((taken[document], order, token_ids))
    return list(dict.fromkeys(token_ids for _, _, token_ids in sorted(rounds)))[:CONTROLS]


def paste(snippet: Tokens, ngrams: Sequence[Ngram], rng: np.random.Generator) -> list[int]:
    """Insert n-grams into a snippet, each at a random place of its own, none before the first token."""
    places = rng.choice(np.arange(1, len(snippet) + 1), size=len(ngrams), replace=False)
    lengths = [len(ngram) for ngram in ngrams]
    inserted = [token_id for ngram in ngrams for token_id in ngram]
    return np.insert(snippet, np.repeat(places, lengths), inserted).tolist()


def pasted_snippets(
    snippets: Sequence[Tokens], ngrams: Ngrams, identity: tuple[int, Hookpoint, int]
) -> list[list[int]]:
    """Paste n-grams of a feature into `PASTED` snippets: one of each size, in turn; sizes it lacks give way to others.

    Args:
        snippets: those to choose from, at least `PASTED`.
        ngrams: of the feature; without any the snippets stay as they are.
        identity: seed, hookpoint and feature, by which snippets and places are chosen.
    """
    seed, place, feature = identity
    order = sorted(range(len(snippets)), key=lambda number: hash64(seed, "pasted", str(place), feature, number))
    sizes = [size if size in ngrams else sorted(ngrams)[-1] for size in (1, 2, 3)] if ngrams else []
    pasted = []
    for turn, number in enumerate(order[:PASTED]):
        taken: list[Ngram] = []
        for shift, size in enumerate(sizes):
            own = ngrams[size]
            taken.append(own[(turn + (shift if sizes.count(size) > 1 else 0)) % len(own)])
        rng = np.random.default_rng(hash64(seed, "places", str(place), feature, number))
        pasted.append(paste(snippets[number], taken, rng))
    return pasted


def control_snippets(
    snippets: Sequence[Tokens], pasted_tokens: Sequence[int], bins: FrequencyBins, seed: int
) -> list[list[int]]:
    """Paste a random unigram, bigram and trigram into each of `CONTROLS` snippets.

    Args:
        snippets: used again in turn, with other random tokens, where there are fewer.
        pasted_tokens: all tokens that are pasted for features; random ones are as frequent.
        bins: of the tokens that may be drawn.
        seed: chooses tokens and places.
    """
    made = []
    for number in range(CONTROLS):
        rng = np.random.default_rng(hash64(seed, "control", number))
        like = rng.choice(np.asarray(pasted_tokens), size=6)
        drawn = bins.draw_like(like.tolist(), rng)
        ngrams = [tuple(drawn[:1]), tuple(drawn[1:3]), tuple(drawn[3:])]
        made.append(paste(snippets[number % len(snippets)], ngrams, rng))
    return made


def own_windows(
    evidence: Evidence, hookpoint: Hookpoint, half: Half, special_ids: Collection[int]
) -> dict[int, list[list[int]]]:
    """Windows around the peak of each feature on its strongest domain passages, at most `OWN_WINDOWS`.

    Args:
        evidence: passages, token by token.
        hookpoint: of the features.
        half: whose passages are taken.
        special_ids: tokens that are left out of windows.

    Returns:
        Feature -> its windows, those of its strongest passages first; none where it is silent.
    """
    maxima = evidence.maxima(hookpoint)
    eligible = [
        n for n, passage in enumerate(evidence.passages) if passage.side == Side.DOMAIN and passage.half == half
    ]
    windows: dict[int, list[list[int]]] = {}
    for column, feature in enumerate(evidence.layers[hookpoint].features.tolist()):
        values = evidence.layers[hookpoint].dense(column)
        best = sorted((-float(maxima[n, column]), n) for n in eligible if maxima[n, column] > 0)[:OWN_WINDOWS]
        windows[feature] = [
            _around_peak(evidence.passages[n], values[evidence.starts[n] : evidence.starts[n + 1]], special_ids)
            for _, n in best
        ]
    return windows


def _around_peak(passage: Passage, values: np.ndarray, special_ids: Collection[int]) -> list[int]:
    """A window of a passage with the strongest token in its last quarter, if so much text is before it."""
    real = np.flatnonzero(~np.isin(passage.token_ids, np.array(sorted(special_ids), np.int64)))
    peak = int(np.searchsorted(real, int(values.argmax())))
    start = max(0, min(peak - PEAK_AT, len(real) - SNIPPET_TOKENS))
    return passage.token_ids[real[start : start + SNIPPET_TOKENS]].tolist()
