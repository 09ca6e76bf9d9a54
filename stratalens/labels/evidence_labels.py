"""Labels without a language model: the concept, phrases and words that the discovery half supports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from stratalens.corpus import Half, Side
from stratalens.corpus.words import phrase_stems
from stratalens.labels.concepts.annotation import AnnotatedPassages
from stratalens.labels.concepts.associations import ActivationShares, activation_shares, preference
from stratalens.labels.concepts.lexicon import (
    FORMS_SHOWN_ALONE,
    FORMS_SHOWN_WITH_WORDS,
    GRAMMAR,
    SURFACE,
)
from stratalens.labels.detection import DetectionTask, Label, detect_by_terms

MAX_LABEL_WORDS = 8
MAX_LABEL_PHRASES = 3
MAX_PHRASES_TRIED = 60
"""Preferred phrases of a feature, at most. A label takes terms of its concept from all of them."""
MAX_BEST_PHRASES = 12
"""The best of these phrases, at most, that count for a label's other terms and its coherence."""
MAX_CONTEXTS_TRIED = 6
"""Concepts, at most, that are compared as labels because of the sentences they are in."""
MIN_FORM_LIFT = 1.9
MIN_FORM_SHARE = 0.5
"""A feature with this share of its activation on one form (digits, a part of speech) is labelled by that form, if the
lift exceeds `MIN_FORM_LIFT` and it fires on enough units of the form."""
MIN_FORM_FIRING_SHARE = 0.25
"""Share of all units of a form on which such a feature must fire."""
MIN_WORD_SHARE = 0.5
"""A feature with this share of its activation on one word is labelled by that word."""
MIN_TERM_SHARE = 0.3
"""A feature with this share of its activation on the terms of one concept is labelled by that concept, if the lift
exceeds `MIN_TERM_LIFT`."""
MIN_TERM_LIFT = 5.0
MIN_PREFERENCE = 0.53
"""A concept or phrase with a lower score (see `LayerAssociations.score`) supports no label."""
MIN_SENTENCES = 4
"""Domain sentences that must hold a candidate; with fewer its score is 0."""
MIN_OTHER_TERM_SENTENCES = 3
MIN_OTHER_TERM_AUROC = 0.58
"""A concept is not used as a label if its terms other than the most frequent one have a lower AUROC, or are in fewer
sentences than `MIN_OTHER_TERM_SENTENCES`."""
DOMAIN_LEXICON_BONUS = 0.05
"""Added to the merit of concepts of the domain's lexicon, to prefer them to ordinary language in close cases."""
DETECTION_WEIGHT = 0.5
COHERENCE_WEIGHT = 0.2
MIN_DISCOVERY_AUROC = 0.6
"""A label whose terms score lower on the feature's detection task on the discovery half is not used."""
UNCLEAR = "Unclear"
"""Label of features for which nothing is found."""
EARLY = "First words of a passage"
"""Label of features with most of their activation on the first tenth of passages."""


@dataclass(frozen=True)
class LayerAssociations:
    """How strongly every candidate (concept or phrase) goes with every feature of one layer, on one half."""

    score: Float[np.ndarray, "candidate feature"]
    """Mean of two lower bounds of AUROC: of the preference among domain sentences, and among all sentences."""
    broad: Bool[np.ndarray, "concept feature"]
    """Whether the preference for a concept remains without its most frequent term."""
    concept_shares: ActivationShares
    word_shares: dict[str, Float[np.ndarray, "feature"]]
    """Share of activation on each word stem, of the stems with at least 1% for some feature."""


def associate(
    annotated: AnnotatedPassages, activation: Float[np.ndarray, "unit feature"], half: Half = Half.DISCOVERY
) -> LayerAssociations:
    """Measure how every candidate goes with every feature, on one half of the passages."""
    by_segment = annotated.mean_by_segment(activation)
    in_half = annotated.of_half(half)[annotated.segment_passage]
    in_domain = annotated.of_half(half, Side.DOMAIN)[annotated.segment_passage]
    among_domain = preference(annotated.holds[in_domain], by_segment[in_domain])
    among_all = preference(annotated.holds[in_half], by_segment[in_half])
    other_terms = preference(annotated.holds_other_terms[in_domain], by_segment[in_domain])
    enough = (among_domain.segments >= MIN_SENTENCES)[:, None]
    units = np.flatnonzero(annotated.of_half(half)[annotated.units.words.passage])
    return LayerAssociations(
        score=np.where(enough, (among_domain.lower + among_all.lower) / 2, 0.0),
        broad=(other_terms.segments >= MIN_OTHER_TERM_SENTENCES)[:, None] & (other_terms.auroc >= MIN_OTHER_TERM_AUROC),
        concept_shares=activation_shares(annotated.covers, activation, units),
        word_shares=_word_shares(annotated, activation, units),
    )


def _word_shares(annotated: AnnotatedPassages, activation: np.ndarray, units: np.ndarray) -> dict[str, np.ndarray]:
    stems, index = np.unique(np.array([annotated.units.words.stems[unit] for unit in units]), return_inverse=True)
    sums = np.zeros((len(stems), activation.shape[1]))
    np.add.at(sums, index, activation[units])
    shares = sums / np.maximum(sums.sum(0), 1e-12)
    kept = np.flatnonzero(shares.max(1) >= 0.01)
    return {str(stems[at]): shares[at] for at in kept}


def candidate_labels(annotated: AnnotatedPassages, associations: LayerAssociations, column: int) -> list[Label]:
    """Return the labels that the evidence supports, best first: by form or word, else by terms, else by context.

    A form, a word, or the terms of a concept with enough of the activation give a single label. Otherwise the concepts
    in the sentences that the feature prefers give one label each, and its preferred phrases alone one more.
    """
    share, lift = associations.concept_shares.share[:, column], associations.concept_shares.lift[:, column]
    groups = np.array([concept.group for concept in annotated.lexicon.concepts])
    is_form = (lift > MIN_FORM_LIFT) & (associations.concept_shares.fires[:, column] >= MIN_FORM_FIRING_SHARE)
    surface, grammar = groups == SURFACE, groups == GRAMMAR
    phrases = _preferred_phrases(annotated, associations, column)
    words = sorted(associations.word_shares, key=lambda word: -associations.word_shares[word][column])
    at_surface = int(np.argmax(np.where(surface & is_form, share, 0)))
    if (surface & is_form)[at_surface] and share[at_surface] >= MIN_FORM_SHARE:
        name = annotated.lexicon.concepts[at_surface].name
        added_phrases = [] if name in FORMS_SHOWN_ALONE or name in FORMS_SHOWN_WITH_WORDS else phrases
        return [_compose_label(annotated, at_surface, added_phrases, words if name in FORMS_SHOWN_WITH_WORDS else ())]
    if words and associations.word_shares[words[0]][column] >= MIN_WORD_SHARE:
        return [Label(f'The word "{annotated.usual_spelling(words[0])}"', (), (words[0],))]
    at_grammar = int(np.argmax(np.where(grammar & is_form, share, 0)))
    if (grammar & is_form)[at_grammar] and share[at_grammar] >= MIN_FORM_SHARE:
        return [_compose_label(annotated, at_grammar, [], words)]
    at_terms = int(np.argmax(np.where(~surface & ~grammar & (lift > MIN_TERM_LIFT), share, 0)))
    if share[at_terms] >= MIN_TERM_SHARE and lift[at_terms] > MIN_TERM_LIFT:
        return [_compose_label(annotated, at_terms, [], words)]
    context = np.where(
        surface | grammar | ~associations.broad[:, column], 0.0, associations.score[: annotated.concepts, column]
    )
    best = [int(at) for at in np.argsort(-context, kind="stable")[:MAX_CONTEXTS_TRIED] if context[at] >= MIN_PREFERENCE]
    labels = [_compose_label(annotated, at, phrases) for at in best]
    if len(phrases) >= 2:
        labels.append(_compose_label(annotated, None, phrases))
    return labels


def choose_label(
    annotated: AnnotatedPassages,
    associations: LayerAssociations,
    column: int,
    task: DetectionTask | None,
    *,
    early: bool,
) -> Label:
    """Choose the label of one feature: of those that the evidence supports, the best that also passes detection.

    Args:
        annotated: passages of both halves; only those of the discovery half are used.
        associations: of the feature's layer.
        column: column of the feature in its layer.
        task: the feature's detection task on the discovery half; None accepts labels without detection.
        early: whether most of its activation is on the first tenth of passages.

    Returns:
        The label; `UNCLEAR` if none is supported, `EARLY` if `early`.
    """
    if early:
        return Label(EARLY, ())
    best, best_merit = Label(UNCLEAR, ()), -np.inf
    for label in candidate_labels(annotated, associations, column):
        auroc = detect_by_terms(annotated, label, task).auroc if task is not None else 0.5
        if auroc >= MIN_DISCOVERY_AUROC or task is None:
            merit = DETECTION_WEIGHT * auroc + _merit(annotated, associations, column, label)
            best, best_merit = (label, merit) if merit > best_merit else (best, best_merit)
    return best


def _merit(annotated: AnnotatedPassages, associations: LayerAssociations, column: int, label: Label) -> float:
    """Rate how well the evidence supports a label: by its first candidate and the best phrases that hold its terms."""
    if not label.candidates:
        return 1.0
    first = label.candidates[0]
    merit = float(associations.score[first, column])
    if first >= annotated.concepts:
        return merit
    phrases = _preferred_phrases(annotated, associations, column)[:MAX_BEST_PHRASES]
    weights = np.array([associations.score[at, column] - 0.5 for at in phrases])
    holds_first = np.array(
        [first in annotated.lexicon.concepts_of(annotated.phrase_stems(at)) for at in phrases], dtype=bool
    )
    coherence = float(weights[holds_first].sum() / weights.sum()) if len(phrases) else 0.0
    bonus = DOMAIN_LEXICON_BONUS if annotated.lexicon.is_specific(first) else 0.0
    return merit + COHERENCE_WEIGHT * coherence + bonus


def _preferred_phrases(annotated: AnnotatedPassages, associations: LayerAssociations, column: int) -> list[int]:
    """Return the phrases, as candidates, that the feature clearly prefers, best first."""
    score = associations.score[annotated.concepts :, column]
    order = np.argsort(-score, kind="stable")
    return [annotated.concepts + int(at) for at in order[:MAX_PHRASES_TRIED] if score[at] >= MIN_PREFERENCE]


def _compose_label(
    annotated: AnnotatedPassages, concept: int | None, phrases: list[int], words: Sequence[str] = ()
) -> Label:
    """Compose a label `Concept: phrase, phrase` of at most eight words, in which no word is repeated.

    Args:
        annotated: the passages whose candidates are meant.
        concept: comes first in the label; None for a label of phrases alone.
        phrases: candidates to add, best first.
        words: stems to add, best first; those that are in no term of the concept are left out.
    """
    name = annotated.lexicon.concepts[concept].name if concept is not None else ""
    used_stems = set(phrase_stems(name))
    words_left = MAX_LABEL_WORDS - len(name.split())
    chosen, spellings = [], []
    for candidate, stems, spelling in _label_additions(annotated, concept, phrases, words):
        if len(spellings) == MAX_LABEL_PHRASES or len(spelling.split()) > words_left or used_stems & set(stems):
            continue
        words_left -= len(spelling.split())
        used_stems |= set(stems)
        spellings.append(spelling)
        if candidate is not None:
            chosen.append(candidate)
    body = ", ".join(spellings)
    if concept is None:
        return Label(body[:1].upper() + body[1:], tuple(chosen))
    return Label(f"{name}: {body}" if spellings else name, (concept, *chosen))


def _label_additions(
    annotated: AnnotatedPassages, concept: int | None, phrases: list[int], words: Sequence[str]
) -> list[tuple[int | None, tuple[str, ...], str]]:
    """Return what a label may add, as (candidate or None, stems, spelling): phrases of the concept come first."""
    options = [(at, annotated.phrase_stems(at), annotated.phrase_name(at)) for at in phrases]
    if concept is None:
        return list(options[:MAX_BEST_PHRASES])
    concepts_of_options = [annotated.lexicon.concepts_of(stems) for _, stems, _ in options]
    own = [option for option, concepts in zip(options, concepts_of_options, strict=True) if concept in concepts]
    other_domain = [
        option
        for option, concepts in list(zip(options, concepts_of_options, strict=True))[:MAX_BEST_PHRASES]
        if concept not in concepts and any(annotated.lexicon.is_specific(at) for at in concepts)
    ]
    spellings = annotated.concept_spellings(concept) if words else {}
    return [*own, *other_domain, *((None, (word,), spellings[word]) for word in words if word in spellings)]


class Support(NamedTuple):
    """Concepts and phrases that a feature prefers: (name, score) each, best first."""

    concepts: list[tuple[str, float]]
    phrases: list[tuple[str, float]]


def support_of(
    annotated: AnnotatedPassages, associations: LayerAssociations, column: int, max_count: int = 8
) -> Support:
    """Return the concepts and phrases that a feature prefers most, with their scores (0.5: no preference).

    Args:
        annotated: the annotated passages.
        associations: of the feature's layer.
        column: column of the feature in its layer.
        max_count: limit on the concepts, and on the phrases.
    """
    score = associations.score[:, column]

    def best(first: int, last: int) -> list[int]:
        order = first + np.argsort(-score[first:last], kind="stable")[:max_count]
        return [int(at) for at in order if score[at] > 0.5]

    return Support(
        concepts=[(annotated.lexicon.concepts[at].name, float(score[at])) for at in best(0, annotated.concepts)],
        phrases=[(annotated.phrase_name(at), float(score[at])) for at in best(annotated.concepts, len(score))],
    )
