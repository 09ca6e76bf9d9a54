"""Means over documents, and differences of them: 95% intervals, and one-sided tests that they are above 0."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from stratalens.ranking.contrast import CONFIDENCE_LEVEL, mean_moments

Values = Float[np.ndarray, "document"]


class Estimate(NamedTuple):
    """A mean over documents, or a difference of two such means."""

    value: float
    low: float
    """Of the two-sided 95% interval."""
    high: float
    p_value: float
    """One-sided, of that it is above 0."""

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0

    def within(self, bound: float) -> bool:
        """Whether the whole interval lies between plus and minus a bound."""
        return -bound <= self.low and self.high <= bound


def mean(x: Values) -> Estimate:
    """The mean of one value a document, see `difference`."""
    return _estimate(float(x.mean()), [(x, 1)])


def difference(x: Float[np.ndarray, "domain_document"], y: Float[np.ndarray, "general_document"]) -> Estimate:
    """The mean of `x` less that of `y`, one value a document.

    The interval is Welch's (1947), by Student's t. One end is moved out to where the skewness of the documents puts it,
    and the test with it: by the first term of the Edgeworth expansion of the t statistic, error * skewness *
    (1 + 2 quantile^2) / 6 (Johnson 1978; Hall 1983; of two samples: Cressie & Whitford 1986), as in `contrast`. The
    changes of a loss are skewed: most documents have hardly any, and a few have most of it.

    Where no document differs from the others of its side, the interval is a point and p is 0 above 0, else 1. Of fewer
    than two documents nothing is known: the interval has no end, and p is 1.
    """
    return _estimate(float(x.mean() - y.mean()), [(x, 1), (y, -1)])


def _estimate(value: float, sides: list[tuple[Float[np.ndarray, "_"], int]]) -> Estimate:
    """Of the sum of independent means, each with a sign."""
    if min(len(values) for values, _ in sides) < 2:
        return Estimate(value, -math.inf, math.inf, 1.0)
    deviations = [values - values.mean() for values, _ in sides]
    unit = max(float(np.abs(own).max()) for own in deviations)
    if unit <= _rounding(sides):
        return Estimate(value, value, value, 0.0 if value > 0 else 1.0)
    moments = [mean_moments(own[:, None] / unit) for own in deviations]  # powers neither overflow nor vanish
    variances = [float(own.variance[0]) for own in moments]
    variance = sum(variances)
    freedom = variance**2 / sum(own**2 / (len(values) - 1) for own, (values, _) in zip(variances, sides, strict=True))
    third = sum(sign * float(own.third[0]) for own, (_, sign) in zip(moments, sides, strict=True))
    error, skewness = unit * math.sqrt(variance), third / variance**1.5
    quantile = float(special.stdtrit(freedom, (1 + CONFIDENCE_LEVEL) / 2))
    shift = skewness * (1 + 2 * quantile**2) / 6
    low, high = value - error * (quantile + max(0.0, -shift)), value + error * (quantile + max(0.0, shift))
    return Estimate(value, low, high, float(special.stdtr(freedom, -_moved(value / error, max(0.0, -skewness)))))


def _rounding(sides: list[tuple[Float[np.ndarray, "_"], int]]) -> float:
    """Deviations up to this are those of equal numbers from their computed mean."""
    return 4 * float(np.finfo(np.float64).eps) * max(float(np.abs(values).max()) for values, _ in sides)


def _moved(statistic: float, skewness: float) -> float:
    """The quantile q with q + skewness (1 + 2 q^2) / 6 = statistic, so that test and interval agree."""
    over = statistic - skewness / 6
    return over if over <= 0 else 2 * over / (1 + math.sqrt(1 + 4 * skewness * over / 3))
