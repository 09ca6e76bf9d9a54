"""The token test: do the n-grams on which a feature fires switch it on in unrelated text?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from stratalens.corpus import Half
from stratalens.evidence import Evidence
from stratalens.hookpoint import Hookpoint
from stratalens.validation.frequencies import FrequencyBins, general_counts
from stratalens.validation.injection import Maxima, Piece
from stratalens.validation.masking import NOTHING_MASKED, MaskedPassages, Terms, mask_terms, share_kept
from stratalens.validation.ngrams import NGRAM_SIZES, Ngrams, strongest_ngrams
from stratalens.validation.other_senses import OtherSenses, PairSentences, other_senses
from stratalens.validation.snippets import (
    CONTROLS,
    OWN_WINDOWS,
    PASTED,
    SNIPPET_TOKENS,
    Frame,
    Tokens,
    control_snippets,
    own_windows,
    pasted_snippets,
)
from stratalens.validation.token_verdicts import MAX_NGRAM_CHARACTERS, Measured, TokenTestScore, token_test_scores


@dataclass(frozen=True)
class TokenTestText:
    """The text of a token test, and the tokens that it may draw."""

    evidence: Evidence
    """Passages, and what the tested features do on them."""
    split: bool
    """Whether documents were held back: the discovery half chooses n-grams, the confirmation half is what is tested."""
    snippets: Sequence[Tokens]
    """General text to paste into, at least `PASTED` windows without special tokens."""
    terms: Terms | None
    """Where the terms of the domain's lexicon are; None for a domain without one."""
    pairs: PairSentences
    """Pairs of sentences in which a word has two senses."""
    seed: int


@dataclass(frozen=True)
class TokenSet:
    """The tokens of a model, as the token test uses them."""

    ordinary_ids: Int[np.ndarray, "token"]
    """Ids that may be drawn."""
    special_ids: frozenset[int]
    frame: Frame
    show: Callable[[list[int]], str]
    """Text of token ids."""


def expected_tokens(features: int) -> int:
    """About how many tokens a test of so many features reads, besides masked passages and pairs of sentences."""
    pasted = SNIPPET_TOKENS + sum(NGRAM_SIZES)
    return features * (PASTED * pasted + OWN_WINDOWS * SNIPPET_TOKENS) + CONTROLS * pasted


@dataclass(frozen=True)
class TokenTest:
    """A token test: what is read, and what follows from the values."""

    text: TokenTestText
    tokens: TokenSet

    @property
    def _chooses(self) -> Half:
        return Half.DISCOVERY

    @property
    def _tests(self) -> Half:
        return Half.CONFIRMATION if self.text.split else Half.DISCOVERY

    @cached_property
    def features(self) -> dict[Hookpoint, tuple[int, ...]]:
        """Hookpoint -> its features, the deepest hookpoint first."""
        layers = self.text.evidence.layers
        return {
            place: tuple(layers[place].features.tolist())
            for place in sorted(layers, reverse=True)
            if len(layers[place].features)
        }

    @cached_property
    def _ngrams(self) -> dict[Hookpoint, dict[int, Ngrams]]:
        return strongest_ngrams(self.text.evidence, self._chooses, self.tokens.special_ids)

    @cached_property
    def _counts(self) -> Int[np.ndarray, "token_id"]:
        return general_counts(self.text.evidence)

    @cached_property
    def masked(self) -> MaskedPassages:
        """Domain passages with random tokens in the place of terms; none without a lexicon."""
        text = self.text
        if text.terms is None:
            return NOTHING_MASKED
        frequencies = (self._counts, self.tokens.ordinary_ids)
        return mask_terms(text.evidence, text.terms, self._tests, frequencies, text.seed)

    @cached_property
    def _shared(self) -> list[list[np.ndarray]]:
        """What is read for all features together: snippets with random tokens, masked passages, pairs of sentences."""
        own = [ngrams for features in self._ngrams.values() for ngrams in features.values()]
        pasted = [token_id for ngrams in own for size in ngrams for ngram in ngrams[size] for token_id in ngram]
        bins = FrequencyBins.of(self._counts, self.tokens.ordinary_ids)
        like = pasted or [token_id for snippet in self.text.snippets for token_id in snippet.tolist()]
        controls = control_snippets(self.text.snippets, like, bins, self.text.seed)
        return [[self.tokens.frame(ids) for ids in controls], self.masked.sequences, self.text.pairs.sequences]

    @cached_property
    def pieces(self) -> list[Piece]:
        """What is to be read: the shared text, then that of each feature, those of the deepest hookpoint first."""
        controls, masked, pairs = self._shared
        pieces = [Piece(tuple(sequences), self.features) for sequences in (controls, masked) if sequences]
        if pairs:
            pieces.append(Piece(tuple(pairs), self.features, tuple(self.text.pairs.of_word)))
        for place, features in self.features.items():
            windows = own_windows(self.text.evidence, place, self._tests, self.tokens.special_ids)
            for feature in features:
                identity = (self.text.seed, place, feature)
                pasted = pasted_snippets(self.text.snippets, self._ngrams[place][feature], identity)
                sequences = tuple(map(self.tokens.frame, [*pasted, *windows[feature]]))
                pieces.append(Piece(sequences, {place: (feature,)}))
        return pieces

    def scores(
        self, values: Sequence[dict[Hookpoint, Maxima]], sizes: Sequence[int] = NGRAM_SIZES
    ) -> dict[Hookpoint, dict[int, TokenTestScore]]:
        """The scores of all features.

        Args:
            values: of `pieces`.
            sizes: of the n-grams that the scores show as text.

        Returns:
            Hookpoint -> feature -> its score.
        """
        shared = iter(values)
        controls, masked, pairs = (next(shared) if sequences else None for sequences in self._shared)
        assert controls is not None
        measured, keys = list[Measured](), list[tuple[Hookpoint, int]]()
        for place, features in self.features.items():
            for column, feature in enumerate(features):
                own = next(shared)[place][:, 0]
                ngrams = self._ngrams[place][feature]
                shown = self._shown(ngrams, sizes)
                values_of = (own[:PASTED], controls[place][:, column], own[PASTED:])
                measured.append(Measured(*values_of, shown, bool(ngrams)))
                keys.append((place, feature))
        scores: dict[Hookpoint, dict[int, TokenTestScore]] = {place: {} for place in self.features}
        reverse = {place: self._reverse(place, masked, pairs) for place in self.features}
        for (place, feature), score in zip(keys, token_test_scores(measured), strict=True):
            kept, senses = reverse[place][self.features[place].index(feature)]
            fired, silent = (None, None) if senses is None else senses
            scores[place][feature] = score._replace(masked_share_kept=kept, pairs_fired=fired, pairs_silent=silent)
        return scores

    def _reverse(
        self, place: Hookpoint, masked: dict[Hookpoint, Maxima] | None, pairs: dict[Hookpoint, Maxima] | None
    ) -> list[tuple[float | None, OtherSenses | None]]:
        """For each feature of a hookpoint: the share of its activation kept without terms, and its pairs of senses."""
        nothing = [None] * len(self.features[place])
        kept = share_kept(self.text.evidence, place, self.masked.numbers, masked[place]) if masked else nothing
        return list(zip(kept, other_senses(pairs[place]) if pairs else nothing, strict=True))

    def _shown(self, ngrams: Ngrams, sizes: Sequence[int]) -> list[str]:
        chosen = [ngram for size in sizes for ngram in ngrams.get(size, ())]
        return [self.tokens.show(list(ngram))[:MAX_NGRAM_CHARACTERS] for ngram in chosen]
