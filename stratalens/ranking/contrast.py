"""Effect sizes, intervals and tests of domain documents against general documents, one column per latent.

Functions of two sides take dense values `x` (domain), `[domain_document, latent]`, and `y` (general),
`[general_document, latent]`.
"""

import warnings
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


def welch_interval(estimate: Vector, x: Domain, y: General, x_passages: np.ndarray, y_passages: np.ndarray) -> Interval:
    """Welch's t interval around a difference of passage means, with documents as the independent units.

    A mean over passages is a ratio of document totals, so each document enters by its influence on that ratio (Cochran
    1977, Sampling Techniques, 3rd ed., section 6.3). When all documents have equally many passages this is exactly
    Welch's interval of the document means.

    Args:
        estimate: the difference of passage means, which is the centre of the interval.
        x, y: document values of domain and general text.
        x_passages, y_passages: number of passages of each document.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns about latents that are constant on both sides
        test = stats.ttest_ind(_influence(x, x_passages), _influence(y, y_passages), equal_var=False, axis=0)
        interval = test.confidence_interval(CONFIDENCE_LEVEL)
    half_width = np.nan_to_num((interval.high - interval.low) / 2)
    return Interval(estimate - half_width, estimate + half_width)


def _influence(values: Documents, passages: np.ndarray) -> Documents:
    """Document values whose plain mean is the mean over passages, and whose variance is that of the ratio."""
    weight = passages / passages.mean()
    mean = (weight[:, None] * values).mean(0)
    return mean + weight[:, None] * (values - mean)


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
