"""Effect sizes, intervals and tests of domain documents against general documents, one column per latent.

Functions of two sides take dense values `x` (domain), `[domain_document, latent]`, and `y` (general),
`[general_document, latent]`.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.special import expit, logit

CONFIDENCE_LEVEL = 0.95
Vector = Float[np.ndarray, "latent"]
Documents = Float[np.ndarray, "document latent"]
Domain = Float[np.ndarray, "domain_document latent"]
General = Float[np.ndarray, "general_document latent"]


class Interval(NamedTuple):
    """A two-sided 95% confidence interval for each latent."""

    low: Vector
    high: Vector


class Auroc(NamedTuple):
    """Probability that a domain document exceeds a general one, ties counting half, with its interval."""

    value: Vector
    interval: Interval


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


def auroc(x: Domain, y: General) -> Auroc:
    """AUROC by midranks, with DeLong's variance on the logit scale.

    DeLong, DeLong & Clarke-Pearson 1988; midranks after Sun & Xu 2014. Where the variance is zero (complete separation,
    or no document with a value), Wilson's score interval is used, with the size of the smaller side as trials.
    """
    n, m = len(x), len(y)
    ranks = stats.rankdata(np.concatenate([x, y]), axis=0)
    above_general = (ranks[:n] - stats.rankdata(x, axis=0)) / m
    below_domain = 1 - (ranks[n:] - stats.rankdata(y, axis=0)) / n
    value = above_general.mean(0)
    variance = above_general.var(0, ddof=1) / n + below_domain.var(0, ddof=1) / m
    regular = (variance > 1e-12) & (value > 0) & (value < 1)
    fallback = _wilson(value, min(n, m))
    safe = np.where(regular, value, 0.5)
    half_width = stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2) * np.sqrt(variance) / (safe * (1 - safe))
    low = np.where(regular, expit(logit(safe) - half_width), np.minimum(fallback.low, value))
    high = np.where(regular, expit(logit(safe) + half_width), np.maximum(fallback.high, value))
    return Auroc(value, Interval(low, high))


def _wilson(share: Vector, trials: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    z = stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2)
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half_width = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return Interval(np.clip(centre - half_width, 0, 1), np.clip(centre + half_width, 0, 1))


def p_values(x: Domain, y: General) -> Vector:
    """One-sided Brunner-Munzel p-value (Brunner & Munzel 2000) that domain documents exceed general ones.

    Where its variance is zero (complete separation), the Mann-Whitney test is used; where all values are tied, p is 1.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns about the latents for which the fallback is used
        p = stats.brunnermunzel(x, y, alternative="greater", axis=0).pvalue
    undefined = np.flatnonzero(~np.isfinite(p))
    if len(undefined):
        fallback = stats.mannwhitneyu(x[:, undefined], y[:, undefined], alternative="greater", axis=0).pvalue
        tied = (x[:, undefined] == x[:1, undefined]).all(0) & (y[:, undefined] == x[:1, undefined]).all(0)
        p[undefined] = np.where(tied, 1.0, fallback)
    return p


def hedges_g(x: Domain, y: General) -> Vector:
    """Difference of means over the pooled standard deviation, corrected for small samples (Hedges 1981).

    0 where both sides are constant and equal, infinite where they are constant and differ.
    """
    n, m = len(x), len(y)
    pooled = np.sqrt(((n - 1) * x.var(0, ddof=1) + (m - 1) * y.var(0, ddof=1)) / (n + m - 2))
    difference = x.mean(0) - y.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(difference == 0, 0.0, difference / pooled)
    return ratio * (1 - 3 / (4 * (n + m) - 9))


def q_values(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values (Benjamini & Hochberg 1995); an empty input stays empty."""
    return stats.false_discovery_control(p, method="bh") if len(p) else p
