"""Labels without a language model: the concept and the phrases that the discovery half supports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from stratalens.corpus import Half, Side
from stratalens.corpus.words import phrase_stems
from stratalens.labels.concepts.annotation import AnnotatedPassages
from stratalens.labels.concepts.associations import Mass, mass, preference
from stratalens.labels.concepts.lexicon import (
    FORMS_ALONE,
    FORMS_BY_WORDS,
    GRAMMAR,
    SURFACE,
)
from stratalens.labels.detection import DetectionTask, Label, detect_by_terms

MOST_WORDS = 8
MOST_PHRASES = 3
PHRASES_TRIED = 60
"""Phrases, at most, among which a label finds terms of its concept ..."""
PHRASES_BEST = 12
"""... and among which others, and those that tell how coherent a label is."""
CONTEXTS_TRIED = 6
FORM_LIFT = 1.9
FORM_SHARE = 0.5
"""A feature with this share of its activation on one form (digits, a part of speech) is about that form."""
FORM_FIRES = 0.25
"""... provided that it fires on this share of all units of the form."""
WORD_SHARE = 0.5
"""A feature with this share of its activation on one word is about that word."""
TERM_SHARE = 0.3
"""A feature with this share on the terms of one concept, and this lift, is about these terms."""
TERM_LIFT = 5.0
LEAST_PREFERENCE = 0.53
"""Lower bound of AUROC, mean of both contrasts, below which a context supports no label."""
LEAST_SENTENCES = 4
LEAST_MORE_SENTENCES = 3
LEAST_MORE_PREFERENCE = 0.58
"""A concept is no label when the rest of its terms, without the most frequent one, are preferred less than this."""
OWN_LEXICON_BONUS = 0.05
"""Where evidence is about even, a concept of the domain's lexicon goes before one of ordinary language."""
DETECTION_WEIGHT = 0.5
COHERENCE_WEIGHT = 0.2
LEAST_DISCOVERY_AUROC = 0.6
"""A label that does not tell the discovery half's own passages apart this well is not given."""
UNCLEAR = "Unclear"
EARLY = "First words of a passage"


@dataclass(frozen=True)
class LayerAssociations:
    """What the discovery half says of every candidate and feature of one layer."""

    score: Float[np.ndarray, "candidate feature"]
    """Mean lower bound of the preference among domain sentences and among all."""
    broad: Bool[np.ndarray, "concept feature"]
    """Whether the preference for a concept does not hang on a single term of it."""
    mass: Mass
    """Over concepts."""
    words: dict[str, Float[np.ndarray, "feature"]]
    """Share of activation on each word stem that takes any share worth naming."""


def associate(
    text: AnnotatedPassages, activation: Float[np.ndarray, "unit feature"], half: Half = Half.DISCOVERY
) -> LayerAssociations:
    """Compare features with all candidates on one half of the passages."""
    by_segment = text.mean_by_segment(activation)
    own = text.of_half(half)[text.segment_passage]
    domain = text.of_half(half, Side.DOMAIN)[text.segment_passage]
    narrow = preference(text.holds[domain], by_segment[domain])
    wide = preference(text.holds[own], by_segment[own])
    more = preference(text.holds_more[domain], by_segment[domain])
    enough = (narrow.segments >= LEAST_SENTENCES)[:, None]
    units = np.flatnonzero(text.of_half(half)[text.units.words.passage])
    return LayerAssociations(
        score=np.where(enough, (narrow.lower + wide.lower) / 2, 0.0),
        broad=(more.segments >= LEAST_MORE_SENTENCES)[:, None] & (more.auroc >= LEAST_MORE_PREFERENCE),
        mass=mass(text.covers, activation, units),
        words=_word_shares(text, activation, units),
    )


def _word_shares(text: AnnotatedPassages, activation: np.ndarray, units: np.ndarray) -> dict[str, np.ndarray]:
    stems, index = np.unique(np.array([text.units.words.stems[unit] for unit in units]), return_inverse=True)
    sums = np.zeros((len(stems), activation.shape[1]))
    np.add.at(sums, index, activation[units])
    shares = sums / np.maximum(sums.sum(0), 1e-12)
    kept = np.flatnonzero(shares.max(1) >= 0.01)
    return {str(stems[at]): shares[at] for at in kept}


def candidates(text: AnnotatedPassages, found: LayerAssociations, column: int) -> list[Label]:
    """Labels that the evidence supports, best first: of a form or a word, else of terms, else of contexts."""
    share, lift = found.mass.share[:, column], found.mass.lift[:, column]
    groups = np.array([concept.group for concept in text.lexicon.concepts])
    formal = (lift > FORM_LIFT) & (found.mass.fires[:, column] >= FORM_FIRES)
    surface, grammar = groups == SURFACE, groups == GRAMMAR
    phrases = _good_phrases(text, found, column)
    words = sorted(found.words, key=lambda word: -found.words[word][column])
    at_surface = int(np.argmax(np.where(surface & formal, share, 0)))
    if (surface & formal)[at_surface] and share[at_surface] >= FORM_SHARE:
        name = text.lexicon.concepts[at_surface].name
        shown = [] if name in FORMS_ALONE or name in FORMS_BY_WORDS else phrases
        return [_composed(text, at_surface, shown, words if name in FORMS_BY_WORDS else ())]
    if words and found.words[words[0]][column] >= WORD_SHARE:
        return [Label(f'The word "{text.written(words[0])}"', (), (words[0],))]
    at_grammar = int(np.argmax(np.where(grammar & formal, share, 0)))
    if (grammar & formal)[at_grammar] and share[at_grammar] >= FORM_SHARE:
        return [_composed(text, at_grammar, [], words)]
    at_terms = int(np.argmax(np.where(~surface & ~grammar & (lift > TERM_LIFT), share, 0)))
    if share[at_terms] >= TERM_SHARE and lift[at_terms] > TERM_LIFT:
        return [_composed(text, at_terms, [], words)]
    context = np.where(surface | grammar | ~found.broad[:, column], 0.0, found.score[: text.concepts, column])
    best = [int(at) for at in np.argsort(-context, kind="stable")[:CONTEXTS_TRIED] if context[at] >= LEAST_PREFERENCE]
    found_labels = [_composed(text, at, phrases) for at in best]
    if len(phrases) >= 2:
        found_labels.append(_composed(text, None, phrases))
    return found_labels


def choose(
    text: AnnotatedPassages, found: LayerAssociations, column: int, task: DetectionTask | None, *, early: bool
) -> Label:
    """The label of one feature: of what the evidence supports, what also tells the discovery passages apart.

    Args:
        text: passages of both halves; only those of the discovery half have a part in this.
        found: associations of the feature's layer.
        column: the feature's place in its layer.
        task: the feature's detection task on the discovery half.
        early: whether most of its activation lies on the first tenth of passages.
    """
    if early:
        return Label(EARLY, ())
    best, best_merit = Label(UNCLEAR, ()), -np.inf
    for label in candidates(text, found, column):
        auroc = detect_by_terms(text, label, task).auroc if task is not None else 0.5
        if auroc >= LEAST_DISCOVERY_AUROC or task is None:
            merit = DETECTION_WEIGHT * auroc + _merit(text, found, column, label)
            best, best_merit = (label, merit) if merit > best_merit else (best, best_merit)
    return best


def _merit(text: AnnotatedPassages, found: LayerAssociations, column: int, label: Label) -> float:
    """How well the evidence supports a label: its leading term, and how many of the best phrases speak of it."""
    if not label.candidates:
        return 1.0
    lead = label.candidates[0]
    merit = float(found.score[lead, column])
    if lead >= text.concepts:
        return merit
    phrases = _good_phrases(text, found, column)[:PHRASES_BEST]
    weights = np.array([found.score[at, column] - 0.5 for at in phrases])
    own = np.array([lead in text.lexicon.concepts_of(text.phrase_stems(at)) for at in phrases], dtype=bool)
    coherence = float(weights[own].sum() / weights.sum()) if len(phrases) else 0.0
    bonus = OWN_LEXICON_BONUS if text.lexicon.is_specific(lead) else 0.0
    return merit + COHERENCE_WEIGHT * coherence + bonus


def _good_phrases(text: AnnotatedPassages, found: LayerAssociations, column: int) -> list[int]:
    """Candidates that are phrases and that the feature clearly prefers, best first."""
    score = found.score[text.concepts :, column]
    order = np.argsort(-score, kind="stable")
    return [text.concepts + int(at) for at in order[:PHRASES_TRIED] if score[at] >= LEAST_PREFERENCE]


def _composed(text: AnnotatedPassages, concept: int | None, phrases: list[int], words: Sequence[str] = ()) -> Label:
    """`Concept: phrase, phrase`, of at most eight words, without saying a word twice.

    Args:
        text: where the numbers of concepts and phrases are from.
        concept: leads the label; None for phrases alone.
        phrases: candidates to add, best first.
        words: stems to add, best first, as far as they are terms of the concept.
    """
    name = text.lexicon.concepts[concept].name if concept is not None else ""
    said = set(phrase_stems(name))
    room = MOST_WORDS - len(name.split())
    chosen, shown = [], []
    for at, stems, written in _options(text, concept, phrases, words):
        if len(shown) == MOST_PHRASES or len(written.split()) > room or said & set(stems):
            continue
        room -= len(written.split())
        said |= set(stems)
        shown.append(written)
        if at is not None:
            chosen.append(at)
    body = ", ".join(shown)
    if concept is None:
        return Label(body[:1].upper() + body[1:], tuple(chosen))
    return Label(f"{name}: {body}" if shown else name, (concept, *chosen))


def _options(
    text: AnnotatedPassages, concept: int | None, phrases: list[int], words: Sequence[str]
) -> list[tuple[int | None, tuple[str, ...], str]]:
    """What a label may add: candidate or None, stems, spelling; own terms before the domain's."""
    options = [(at, text.phrase_stems(at), text.phrase_name(at)) for at in phrases]
    if concept is None:
        return list(options[:PHRASES_BEST])
    about = [text.lexicon.concepts_of(stems) for _, stems, _ in options]
    own = [option for option, concepts in zip(options, about, strict=True) if concept in concepts]
    domain = [
        option
        for option, concepts in list(zip(options, about, strict=True))[:PHRASES_BEST]
        if concept not in concepts and any(text.lexicon.is_specific(at) for at in concepts)
    ]
    members = text.members(concept) if words else {}
    return [*own, *domain, *((None, (word,), members[word]) for word in words if word in members)]


class Support(NamedTuple):
    """What of a feature's evidence speaks for which label: names, each with its score."""

    concepts: list[tuple[str, float]]
    phrases: list[tuple[str, float]]


def support(text: AnnotatedPassages, found: LayerAssociations, column: int, shown: int = 8) -> Support:
    """The concepts and phrases that a feature prefers most, by the lower bound of its preference (0.5: none)."""
    score = found.score[:, column]

    def best(first: int, last: int) -> list[int]:
        order = first + np.argsort(-score[first:last], kind="stable")[:shown]
        return [int(at) for at in order if score[at] > 0.5]

    return Support(
        concepts=[(text.lexicon.concepts[at].name, float(score[at])) for at in best(0, text.concepts)],
        phrases=[(text.phrase_name(at), float(score[at])) for at in best(text.concepts, len(score))],
    )
