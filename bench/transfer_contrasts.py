"""Which documents features are selected on, and which they are judged on."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from transfer_data import BUILT_IN, Source, Texts

Pair = tuple[np.ndarray, np.ndarray]
"""Rows of domain and of general documents of one kind."""


class Contrast(NamedTuple):
    """A source on which features are judged, and the text on which they are selected."""

    name: str
    selected_on: Sequence[Pair]
    judged_on: Sequence[Pair]


def leave_one_kind_out(texts: Texts) -> list[Contrast]:
    """Built-in texts: judged on one kind, selected on the others."""
    own = texts.of(BUILT_IN)
    return [
        Contrast(
            held.kind,
            pairs(texts, [source for source in own if source != held]),
            pairs(texts, [held]),
        )
        for held in own
    ]


def leave_one_origin_out(texts: Texts) -> list[Contrast]:
    """Judged on the documents of one origin against general ones of the same kind, selected on sources of other kinds.

    The kind of a corpus is left out of the text that is selected on altogether, so that no general document has a part
    in both. The built-in texts are judged on their own general side, and selected on the corpora alone.
    """
    contrasts = []
    for origin in texts.origins:
        held = texts.of(origin)
        kinds = {source.kind for source in held}
        own = held if origin == BUILT_IN else [source for source in texts.sources if source.kind in kinds]
        domain = [source for source in held if len(texts.sources[source][0])]
        judged = pairs(texts, domain, own)
        selected = pairs(texts, [source for source in texts.sources if source not in own])
        if judged and selected:
            contrasts.append(
                Contrast(f"{origin} ({', '.join(sorted(kinds)) if len(kinds) == 1 else 'all kinds'})", selected, judged)
            )
    return contrasts


def built_in_outside(texts: Texts) -> list[Contrast]:
    """Selected on the built-in texts, judged on each corpus of the domain against each general one."""
    selected = pairs(texts, texts.of(BUILT_IN))
    return [Contrast(name, selected, [pair]) for name, pair in _outside(texts).items()]


def corpus_to_corpus(texts: Texts) -> list[Contrast]:
    """Selected on one corpus of the domain and a general one, judged on two others; the built-in texts have no part."""
    outside = _outside(texts)
    return [
        Contrast(f"{name}; from {other}", [selected], [judged])
        for name, judged in outside.items()
        for other, selected in outside.items()
        if not any(np.intersect1d(one, two).size for one, two in zip(judged, selected, strict=True))
    ]


def _outside(texts: Texts) -> dict[str, Pair]:
    """Each corpus of the domain against each general one, by their names."""
    corpora = [source for source in texts.sources if source.origin != BUILT_IN]
    domain = {source.origin: texts.sources[source][0] for source in corpora}
    general = {source.origin: texts.sources[source][1] for source in corpora}
    return {
        f"{one} / {other}": (domain[one], general[other])
        for one in domain
        for other in general
        if len(domain[one]) and len(general[other])
    }


def pairs(texts: Texts, domain: Iterable[Source], general: Iterable[Source] | None = None) -> list[Pair]:
    """Rows of both sides by kind, for the kinds that both sides have.

    Args:
        texts: all documents.
        domain: sources of the domain side.
        general: those of the general side; the same ones if it is None.
    """
    domain = list(domain)
    sides = domain, domain if general is None else list(general)
    kinds = dict.fromkeys(source.kind for source in domain)
    found = [
        tuple(
            np.concatenate([texts.sources[source][side] for source in own if source.kind == kind] or [np.zeros(0, int)])
            for side, own in enumerate(sides)
        )
        for kind in kinds
    ]
    return [(x, y) for x, y in found if len(x) and len(y)]
