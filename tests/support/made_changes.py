"""Documents and changes of their losses, made without a model: most are 0, the others have heavy tails."""

from dataclasses import replace

import numpy as np

from stratalens.effects.changes import TOKEN_CLASSES, Change, EffectDocuments, FeatureChanges

LOG_NORMAL_MEAN = float(np.exp(0.5))


def made_documents(
    rng: np.random.Generator, *, domain: int = 40, general: int = 40, control: int = 20
) -> EffectDocuments:
    """Documents of both sides, mixed, with tokens of all classes; controls are measured on some of each side."""
    size = domain + general
    is_domain = rng.permutation(size) < domain
    hashes = rng.permutation(2 * size)[:size].astype(np.uint64)
    ranks = np.where(
        is_domain, *((np.where(mask, hashes, 2 * size)).argsort().argsort() for mask in (is_domain, ~is_domain))
    )
    return EffectDocuments(hashes, is_domain, rng.integers(1, 30, (size, len(TOKEN_CLASSES))), ranks < control)


def change_of(documents: EffectDocuments, per_token: np.ndarray) -> Change:
    """A change by so many nats a token on each document; the same on tokens of every class."""
    loss = per_token[:, None] * documents.tokens
    norm = np.where(per_token == 0, 0.0, 2.0 * documents.total)
    return Change(loss, np.abs(loss) / 2, norm)


def on_controls(documents: EffectDocuments, change: Change) -> Change:
    """The change as a control has it: nan on the documents that controls are not measured on."""
    return Change(*(np.where(documents.control.reshape(-1, *(1,) * (part.ndim - 1)), part, np.nan) for part in change))


def heavy_tailed(rng: np.random.Generator, size: int, *, firing: float = 0.4) -> np.ndarray:
    """Values around 0, symmetric, most of them 0 and the others those of Student's t with 3 degrees of freedom."""
    return np.where(rng.random(size) < firing, 0.05 * rng.standard_t(3, size), 0.0)


def made_feature(
    rng: np.random.Generator, documents: EffectDocuments, number: int, *, domain: float = 0, general: float = 0
) -> FeatureChanges:
    """A feature whose removal costs so many nats a token where it fires, besides heavy-tailed noise; so do controls.

    It fires on the same documents as its controls.
    """
    size = len(documents.domain)
    fires = rng.random(size) < 0.4
    means = np.where(documents.domain, domain, general)

    def noise() -> np.ndarray:
        return np.where(fires, 0.05 * rng.standard_t(3, size), 0.0)

    own = change_of(documents, np.where(fires, means, 0) + noise())
    random = [on_controls(documents, change_of(documents, noise())) for _ in range(3)]
    return FeatureChanges(number, own, random, 0.9 * own.loss.sum(1))


def shuffled_sides(rng: np.random.Generator, documents: EffectDocuments) -> EffectDocuments:
    """The same documents with sides that mean nothing; as many of each, also of those with controls."""
    domain = documents.domain.copy()
    for rows in (np.flatnonzero(documents.control), np.flatnonzero(~documents.control)):
        domain[rows] = domain[rng.permutation(rows)]
    return replace(documents, domain=domain)
