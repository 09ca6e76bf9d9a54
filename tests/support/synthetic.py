"""Random passage values of one layer, made without a model, and ways to select some of them."""

import numpy as np

from stratalens.corpus import Populations
from stratalens.harvest.state.passage_values import PassageValues
from stratalens.harvest.state.top_examples import PassagePointers
from stratalens.models.token_classes import TOKEN_CLASSES

POPULATIONS = len(Populations())
LATENTS = 6
WIDTH = 3


def passage_values(passages: int, seed: int, latents: int = LATENTS) -> PassageValues:
    """Sparse random values of passages of all populations; the last latent never fires."""
    rng = np.random.default_rng(seed)
    fires = rng.random((passages, latents)) < 0.4
    fires[:, -1] = False
    passage, latent = np.nonzero(fires)
    mean = rng.lognormal(sigma=2, size=len(passage)).astype(np.float32)
    kept = rng.integers(4, 30, passages)
    return PassageValues(
        population=rng.integers(0, POPULATIONS, passages),
        tokens=kept + rng.integers(5, 9, passages),
        countable_positions=kept + rng.integers(0, 4, passages),
        kept_positions=kept,
        norm_sum=rng.gamma(5, size=passages).astype(np.float32),
        residual_mean=rng.normal(size=(passages, WIDTH)).astype(np.float32),
        passage=passage,
        latent=latent,
        mean=mean,
        maximum=mean * rng.uniform(1, 4, len(passage)).astype(np.float32),
        positions_fired=rng.integers(1, 5, len(passage)),
        class_mass=rng.gamma(1, size=(len(passage), len(TOKEN_CLASSES))).astype(np.float32),
        early_mass=rng.gamma(1, size=len(passage)).astype(np.float32),
    )


def pointers(passages: int, seed: int) -> PassagePointers:
    """Pointers into a corpus of few texts, so that several passages share a text."""
    rng = np.random.default_rng(seed)
    start = rng.permutation(passages) * 100
    return PassagePointers(
        content=rng.integers(2**63, 2**64 - 1, max(1, passages // 3), dtype=np.uint64)[np.arange(passages) // 3 % 5],
        start=start,
        end=start + 90,
    )


def pick(values: PassageValues, passages: np.ndarray) -> PassageValues:
    """The values of some passages, in the order given."""
    position = np.full(len(values.population), -1)
    position[passages] = np.arange(len(passages))
    entry = np.flatnonzero(position[values.passage] >= 0)
    entry = entry[np.argsort(position[values.passage[entry]], kind="stable")]
    by_passage = ("population", "countable_positions", "tokens", "kept_positions", "norm_sum", "residual_mean")
    by_entry = ("latent", "mean", "maximum", "positions_fired", "class_mass", "early_mass")
    return values._replace(
        **{name: getattr(values, name)[passages] for name in by_passage},
        **{name: getattr(values, name)[entry] for name in by_entry},
        passage=position[values.passage[entry]],
    )


def pick_pointers(all_pointers: PassagePointers, passages: np.ndarray) -> PassagePointers:
    """The pointers of some passages, in the order given."""
    return PassagePointers(
        content=all_pointers.content[passages],
        start=all_pointers.start[passages],
        end=all_pointers.end[passages],
    )
