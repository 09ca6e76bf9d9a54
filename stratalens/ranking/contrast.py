"""Effect sizes, intervals and tests of domain documents against general documents, one column per latent.

Functions of two sides take dense values `x` (domain), `[domain_document, latent]`, and `y` (general),
`[general_document, latent]`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

CONFIDENCE_LEVEL = 0.95
Vector = Float[np.ndarray, "latent"]
Documents = Float[np.ndarray, "document latent"]
Domain = Float[np.ndarray, "domain_document latent"]
General = Float[np.ndarray, "general_document latent"]


class Interval(NamedTuple):
    """A two-sided 95% confidence interval for each latent."""

    low: Vector
    high: Vector


def difference_interval(
    estimate: Vector, x: Domain, y: General, x_passages: np.ndarray, y_passages: np.ndarray
) -> Interval:
    """Interval of a difference of passage means, with documents as the independent units.

    Welch's t interval (1947), one end of which is moved out to where the skewness of the documents puts it: by the
    first term of the Edgeworth expansion of the t statistic, error * skewness * (1 + 2 quantile^2) / 6 (Johnson 1978;
    Hall 1983; of two samples: Cressie & Whitford 1986). The other end would move in as far and stays, because the
    skewness of few documents is too uncertain to shorten an interval.

    A mean over passages is a ratio of document totals, so each document enters by its influence on that ratio (Cochran
    1977, Sampling Techniques, 3rd ed., section 6.3). With equally many passages that is its difference from the mean.

    Args:
        estimate: the difference of passage means, which always lies in the interval.
        x, y: document values of domain and general text.
        x_passages, y_passages: number of passages of each document.
    """
    influences = (_influence(x, x_passages), _influence(y, y_passages))
    largest = np.maximum(*(np.abs(own).max(0) for own in influences))
    unit = np.where(largest > 0, largest, 1)  # powers of values in this unit neither overflow nor vanish
    domain, general = (mean_moments(own / unit) for own in influences)
    variance = np.where(largest > 0, domain.variance + general.variance, 1)
    with np.errstate(divide="ignore"):  # of a latent that is constant on both sides
        freedom = variance**2 / (domain.variance**2 / max(1, len(x) - 1) + general.variance**2 / max(1, len(y) - 1))
    quantile = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, freedom)
    half_width = quantile * np.sqrt(variance)
    shift = (domain.third - general.third) / variance * (1 + 2 * quantile**2) / 6
    below, above = half_width + np.maximum(0, -shift), half_width + np.maximum(0, shift)
    return Interval(estimate - largest * below, estimate + largest * above)


class MeanMoments(NamedTuple):
    """Unbiased estimates of the second and third central moments of a mean over documents."""

    variance: Vector
    third: Vector
    """0 of fewer than three documents."""


def mean_moments(deviations: Documents) -> MeanMoments:
    """Moments of the mean of independent values, from their deviations from it: their own mean is 0."""
    n = len(deviations)
    square = deviations**2
    third = (square * deviations).sum(0) / max(1, n * (n - 1) * (n - 2))
    return MeanMoments(square.sum(0) / (n * max(1, n - 1)), third)


def _influence(values: Documents, passages: np.ndarray) -> Documents:
    """Deviations from the mean over passages, whose variance is that of the ratio; their plain mean is 0."""
    weight = passages / passages.mean()
    return weight[:, None] * (values - (weight[:, None] * values).mean(0))


def hedges_g(x: Domain, y: General) -> Vector:
    """Difference of means over the pooled standard deviation, corrected for small samples (Hedges 1981).

    0 where both sides are constant and equal, infinite where they are constant and differ.
    """
    n, m = len(x), len(y)
    pooled = np.sqrt(((n - 1) * x.var(0, ddof=1) + (m - 1) * y.var(0, ddof=1)) / (n + m - 2))
    difference = x.mean(0) - y.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(difference == 0, 0.0, difference / pooled)
    return ratio * hedges_correction(n, m)


def hedges_correction(n: int, m: int) -> float:
    """Factor that takes the small-sample bias out of a standardised difference of `n` and `m` documents."""
    return 1 - 3 / (4 * (n + m) - 9)


def q_values(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values (Benjamini & Hochberg 1995); an empty input stays empty."""
    return stats.false_discovery_control(p, method="bh") if len(p) else p
