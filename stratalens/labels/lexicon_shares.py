"""How much of a feature's activation lies on the terms of the domain's lexicon, and on the tokens just before them."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

from stratalens.corpus import Half
from stratalens.evidence.evidence import first_tokens
from stratalens.labels.concepts.annotation import AnnotatedPassages
from stratalens.labels.concepts.term_tokens import specific_matches, tokens_of_matches
from stratalens.labels.feature_label import AnnotatedEvidence
from stratalens.labels.feature_report import NO_SHARES, LexiconShares, Reports


class LexiconTokens(NamedTuple):
    """Tokens of all passages."""

    counted: Bool[np.ndarray, "token"]
    """In passages of the sample of all text, of the half that estimates."""
    in_term: Bool[np.ndarray, "token"]
    before_term: Bool[np.ndarray, "token"]


def with_lexicon_shares(reports: Reports, evidence: AnnotatedEvidence) -> Reports:
    """Add the lexicon shares to the reports of features, which are in the order of the evidence.

    Args:
        reports: hookpoint -> its features.
        evidence: of these features; shares are over the sampled passages of both sides, in the confirmation half, or in
            both where nothing was held back.
    """
    if not evidence.annotated.lexicon.of_domain:
        return reports
    tokens = lexicon_tokens(evidence.annotated)
    layers = evidence.evidence.layers
    return {
        place: [
            replace(report, lexicon=own)
            for report, own in zip(of_layer, _layer_shares(layers[place].activations, tokens), strict=True)
        ]
        for place, of_layer in reports.items()
    }


def lexicon_tokens(annotated: AnnotatedPassages) -> LexiconTokens:
    """Find the tokens that belong to a term of the domain's lexicon, and those just before the first one of a term."""
    matches, of_token, lexicon = annotated.matches, annotated.units.of_token, annotated.lexicon
    in_term = tokens_of_matches(annotated.units, matches, lexicon)
    is_first_unit = np.zeros(len(annotated.units.words.texts) + 1, bool)  # the last one for tokens of no unit
    is_first_unit[matches.first[specific_matches(matches, lexicon)]] = True
    begins_term = (np.diff(of_token, prepend=-1) != 0) & is_first_unit[of_token]
    before_term = np.append(begins_term[1:], np.zeros(min(1, len(of_token)), bool))
    starts = first_tokens(annotated.passages)
    before_term[starts[1:][np.diff(starts) > 0] - 1] = False  # the next token is in another passage
    return LexiconTokens(np.repeat(_estimating(annotated), np.diff(starts)), in_term, before_term)


def _estimating(annotated: AnnotatedPassages) -> Bool[np.ndarray, "passage"]:
    """Sampled passages of the confirmation half; of both halves where nothing was held back."""
    sampled = np.array([passage.sampled for passage in annotated.passages], bool)
    held_back = annotated.of_half(Half.CONFIRMATION)
    return sampled & held_back if held_back.any() else sampled


def _layer_shares(activations: sparse.csc_array, tokens: LexiconTokens) -> list[LexiconShares]:
    """Shares of the activation of each feature, of which the matrix `[token, feature]` has a column."""
    masks = np.stack([tokens.counted, tokens.counted & tokens.in_term, tokens.counted & tokens.before_term])
    mass: Float[np.ndarray, "mask feature"] = (activations.T @ masks.T.astype(np.float64)).T
    return [
        LexiconShares(float(in_term / total), float(before / total)) if total > 0 else NO_SHARES
        for total, in_term, before in mass.T
    ]
