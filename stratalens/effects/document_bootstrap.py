"""Bootstrap of differences of means: documents are drawn anew within each side, for many columns at once."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from stratalens.effects.document_means import Estimate, difference
from stratalens.files.hashing import hash64
from stratalens.ranking.contrast import CONFIDENCE_LEVEL

RESAMPLES = 9_999
"""The smallest p-value is 1 / (1 + this): small enough for Holm's correction over hundreds of layers."""
PIECE = 1_000
"""Resamples that are drawn at once; bounds the memory."""

Domain = Float[np.ndarray, "domain_document column"]
General = Float[np.ndarray, "general_document column"]


def bootstrap_differences(x: Domain, y: General, seed: int) -> list[Estimate]:
    """The mean of `x` less that of `y` in each column, with an interval and a one-sided test by a bootstrap.

    Every resample draws as many documents of each side with replacement. The interval has the 2.5% and 97.5% quantiles
    of the resampled differences, and p is (1 + resamples with a difference of at most 0) / (1 + resamples) (Davison &
    Hinkley 1997, Bootstrap methods and their application, chapters 4 and 5). Of few documents, with heavy tails or
    mostly zeros, that interval is too short and that p too small; so the wider interval and the larger p of this and of
    `document_means.difference` are taken.

    Args:
        x, y: in an order that does not depend on that of the documents, as the result does.
        seed: of the resamples, which are the same in all columns.
    """
    plain = [difference(own, other) for own, other in zip(x.T, y.T, strict=True)]
    resampled = np.concatenate([own - other for own, other in zip(_means(x, seed, 0), _means(y, seed, 1), strict=True)])
    p_values = (1 + (resampled <= 0).sum(0)) / (1 + len(resampled))
    tail = (1 - CONFIDENCE_LEVEL) / 2
    ends = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return [
        Estimate(own.value, min(own.low, low), max(own.high, high), max(own.p_value, p_value))
        for own, (low, high), p_value in zip(plain, ends.T.tolist(), p_values.tolist(), strict=True)
    ]


def _means(
    values: Float[np.ndarray, "document column"], seed: int, side: int
) -> Iterator[Float[np.ndarray, "resample column"]]:
    """Means of resamples, in pieces; together there are `RESAMPLES`.

    They are the mean of the values and that of the resample's deviations, so that equal values give just their mean.
    """
    rng, n = np.random.default_rng(hash64(seed, "documents of an effect", side)), len(values)
    middle = np.where((values == values[0]).all(0), values[0], values.mean(0))
    for start in range(0, RESAMPLES, PIECE):
        counts = _counts(rng, min(PIECE, RESAMPLES - start), n)
        yield middle + counts @ (values - middle) / n


def _counts(rng: np.random.Generator, resamples: int, n: int) -> Float[np.ndarray, "resample document"]:
    """How often each of n documents is in each resample."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)
