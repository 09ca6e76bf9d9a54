"""How well a latent separates domain documents from general ones of the same kind: AUROC, its interval and a test.

Documents are compared within strata. The AUROC is the mean of those of the strata with weights n m / (n + m), where n
and m are the documents of each side; one stratum is the plain AUROC.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from scipy.special import expit, logit

from stratalens.ranking.contrast import CONFIDENCE_LEVEL, Domain, General, Interval, Vector

MIN_VARIANCE = 1e-12
"""A smaller variance of an AUROC is that of complete separation, or of ties alone, and rounding."""
MIN_TESTED_VARIANCE = 1e-20
"""The same for the test, which needs no logit."""
Z = float(stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2))


class Separation(NamedTuple):
    """Probability that a domain document exceeds a general one of its stratum, ties counting half."""

    auroc: Vector
    interval: Interval
    p_value: Vector
    """One-sided, that domain documents exceed general ones."""


class _Stratum(NamedTuple):
    """One stratum's AUROC, with its variance in two independent parts."""

    x: Domain
    y: General
    auroc: Vector
    domain_variance: Vector
    general_variance: Vector

    @property
    def smaller(self) -> int:
        """Documents of the smaller side."""
        return min(len(self.x), len(self.y))

    @property
    def weight(self) -> float:
        """Weight among the strata, before they are divided by their sum."""
        return len(self.x) * len(self.y) / (len(self.x) + len(self.y))

    def regular(self, least: float) -> Bool[np.ndarray, "latent"]:
        """Where the sides are neither completely separated nor all tied."""
        variance = self.domain_variance + self.general_variance
        return (variance > least) & (self.auroc > 0) & (self.auroc < 1)


def separation(strata: Sequence[tuple[np.ndarray, np.ndarray]]) -> Separation:
    """Compare the documents of each stratum, and average over the strata.

    The variance is DeLong's (DeLong, DeLong & Clarke-Pearson 1988; midranks after Sun & Xu 2014), weighted by the
    squares of the weights; the interval is on the logit scale. The p-value is from a t distribution with the degrees of
    freedom of Satterthwaite (1946) over the parts of all strata: for one stratum the test of Brunner & Munzel (2000). A
    stratum that is completely separated or tied has the variance (w / 2z)^2 of Wilson's score interval of width w, with
    the size of its smaller side as trials, and the interval is not wider than Wilson's of all documents. Where all
    strata are so, the interval is Wilson's, and the test that of Mann and Whitney, stratified as van Elteren's (1960)
    with the weights above; where all values are tied, p is 1.

    Args:
        strata: values of the domain documents, `[domain_document, latent]`, and of the general documents,
            `[general_document, latent]`, of each stratum.
    """
    parts = [_stratum(x, y) for x, y in strata]
    weights = _weights(parts)
    value = weights @ np.stack([part.auroc for part in parts])
    return Separation(value, _interval(value, parts, weights), _p_value(value, parts, weights))


def area_between(x: Domain, y: General) -> Vector:
    """The AUROC alone, by the rank sum of Mann & Whitney (1947).

    Args:
        x: values of the domain documents, `[domain_document, latent]`.
        y: values of the general documents, `[general_document, latent]`.
    """
    n, m = len(x), len(y)
    ranks = stats.rankdata(np.concatenate([x, y]), axis=0)
    return (ranks[:n].sum(0) - n * (n + 1) / 2) / (n * m)


def firing_interval(strata: Sequence[tuple[np.ndarray, np.ndarray]]) -> Interval:
    """The interval of `separation` where all that counts of a document is whether the latent fires in it.

    Args:
        strata: whether the latent fires in the domain documents, `[domain_document, latent]`, and in the general
            documents, `[general_document, latent]`, of each stratum.
    """
    parts = [_firing_stratum(x, y) for x, y in strata]
    weights = _weights(parts)
    return _interval(weights @ np.stack([part.auroc for part in parts]), parts, weights)


def _weights(parts: Sequence[_Stratum]) -> Float[np.ndarray, "stratum"]:
    weights = np.array([part.weight for part in parts])
    return weights / weights.sum()


def _firing_stratum(x: Bool[np.ndarray, "domain latent"], y: Bool[np.ndarray, "general latent"]) -> _Stratum:
    """A document that fires exceeds those that do not, and ties with the others: counts tell all."""
    n, m, fires_x, fires_y = len(x), len(y), x.mean(0), y.mean(0)
    above_general = (1 - fires_y / 2, (1 - fires_y) / 2)
    below_domain = (fires_x / 2, (1 + fires_x) / 2)
    area = fires_x * above_general[0] + (1 - fires_x) * above_general[1]
    return _Stratum(x, y, area, _variance(fires_x, above_general, n), _variance(fires_y, below_domain, m))


def _variance(share: Vector, values: tuple[Vector, Vector], number: int) -> Vector:
    """Variance of the mean of a sample of which a share has one value, and the rest another."""
    return share * (1 - share) * (values[0] - values[1]) ** 2 / (number - 1)


def _stratum(x: Domain, y: General) -> _Stratum:
    n, m = len(x), len(y)
    ranks = stats.rankdata(np.concatenate([x, y]), axis=0)
    above_general = (ranks[:n] - stats.rankdata(x, axis=0)) / m
    below_domain = 1 - (ranks[n:] - stats.rankdata(y, axis=0)) / n
    return _Stratum(x, y, above_general.mean(0), above_general.var(0, ddof=1) / n, below_domain.var(0, ddof=1) / m)


def _interval(value: Vector, parts: Sequence[_Stratum], weights: np.ndarray) -> Interval:
    regular = np.stack([part.regular(MIN_VARIANCE) for part in parts])
    variances = [
        np.where(own, part.domain_variance + part.general_variance, _wilson_variance(part))
        for own, part in zip(regular, parts, strict=True)
    ]
    wilson = _wilson(value, min(sum(len(part.x) for part in parts), sum(len(part.y) for part in parts)))
    safe = np.where(regular.any(0), value, 0.5)
    half_width = Z * np.sqrt(weights**2 @ np.stack(variances)) / (safe * (1 - safe))
    low, high = expit(logit(safe) - half_width), expit(logit(safe) + half_width)
    # The variance of an AUROC is at most A (1 - A) / (size of the smaller side) (Birnbaum & Klose 1957), so Wilson's
    # interval of the whole is wide enough. Near 0 and 1 the substituted variances would make it wider than that.
    low = np.where(regular.all(0), low, np.maximum(low, np.minimum(wilson.low, value)))
    high = np.where(regular.all(0), high, np.minimum(high, np.maximum(wilson.high, value)))
    none = ~regular.any(0)
    return Interval(
        np.where(none, np.minimum(wilson.low, value), low), np.where(none, np.maximum(wilson.high, value), high)
    )


def _p_value(value: Vector, parts: Sequence[_Stratum], weights: np.ndarray) -> Vector:
    tested = reduce(np.logical_or, (part.regular(MIN_TESTED_VARIANCE) for part in parts))
    variance, over_freedom = np.zeros_like(value), np.zeros_like(value)
    for weight, part in zip(weights, parts, strict=True):
        regular = part.regular(MIN_TESTED_VARIANCE)
        for side_variance, size in ((part.domain_variance, len(part.x)), (part.general_variance, len(part.y))):
            own = weight**2 * np.where(regular, side_variance, 0)
            variance += own
            over_freedom += own**2 / (size - 1)
        own = weight**2 * np.where(regular, 0, _wilson_variance(part))
        variance += own
        over_freedom += own**2 / (part.smaller - 1)
    p = stats.t.sf((value - 0.5) / np.sqrt(variance), variance**2 / over_freedom)
    if (untested := np.flatnonzero(~tested)).size:
        p[untested] = _mann_whitney(
            value[untested], [(part.x[:, untested], part.y[:, untested]) for part in parts], weights
        )
    return p


def _mann_whitney(value: Vector, strata: Sequence[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> Vector:
    """One-sided p-values; 1 where all values of each stratum are tied."""
    tied = reduce(np.logical_and, ((np.concatenate(pair) == pair[0][0]).all(0) for pair in strata))
    if len(strata) == 1:
        p = stats.mannwhitneyu(*strata[0], alternative="greater", axis=0).pvalue
    else:
        variance = sum(weight**2 * _null_variance(*pair) for weight, pair in zip(weights, strata, strict=True))
        p = stats.norm.sf((value - 0.5) / np.sqrt(np.where(tied, 1, variance)))
    return np.where(tied, 1.0, p)


def _null_variance(x: Domain, y: General) -> Vector:
    """Variance of an AUROC if both sides have the same distribution, with the correction for ties (Lehmann 1975)."""
    n, m = len(x), len(y)
    total = n + m
    counts = (np.unique(column, return_counts=True)[1].astype(float) for column in np.concatenate([x, y]).T)
    ties = np.array([(count**3 - count).sum() for count in counts])
    return (total + 1 - ties / (total * (total - 1))) / (12 * n * m)


def _wilson_variance(part: _Stratum) -> Vector:
    interval = _wilson(part.auroc, part.smaller)
    return ((interval.high - interval.low) / (2 * Z)) ** 2


def _wilson(share: Vector, trials: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    centre = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half_width = Z / (1 + Z**2 / trials) * np.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return Interval(np.clip(centre - half_width, 0, 1), np.clip(centre + half_width, 0, 1))
