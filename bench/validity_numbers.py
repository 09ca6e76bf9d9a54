"""The numbers by which runs of known truth are judged, each with its standard error over runs."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from validity_samples import GROUPS, PLANTS

NULLS = tuple(number for number, name in enumerate(GROUPS) if name not in PLANTS)
INTERVALS = ("auroc", "specialization")


class Measured(NamedTuple):
    """A mean over runs."""

    value: float
    error: float
    """Standard error over runs."""

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.error:.3f})"


def false_discovery_rate(features: pd.DataFrame) -> Measured:
    """Mean share of the confirmed features that are none; 0 in a run that confirms nothing (Benjamini & Hochberg 1995).

    Only where nothing else than what is planted separates the sides.
    """
    confirmed = _confirmed(features)
    false = _each_run(features, confirmed & np.isin(features["true_group"].to_numpy(), NULLS))
    return _measured(false / np.maximum(_each_run(features, confirmed), 1))


def coverage(features: pd.DataFrame, name: str) -> Measured:
    """How often the interval of `name` holds the truth; for AUROC a truth of 0.5 or any other."""
    truth, low, high = (features[column].to_numpy() for column in (f"true_{name}", f"{name}_low", f"{name}_high"))
    return _mean(features, (low <= truth) & (truth <= high))


def bias(features: pd.DataFrame, name: str, *, split: bool = True) -> Measured:
    """Mean of estimate less truth, where other documents estimate than those that selected, or the same."""
    estimate = features[name if split else f"discovery_{name}"].to_numpy()
    return _mean(features, estimate - features[f"true_{name}"].to_numpy())


def power(features: pd.DataFrame, plant: str, planted: int) -> Measured:
    """Share of the planted features of one kind that are selected and confirmed.

    Args:
        features: the reported ones.
        plant: one of `PLANTS`.
        planted: features of this kind in each run.
    """
    found = _confirmed(features) & (features["true_group"].to_numpy() == GROUPS.index(plant))
    return _measured(_each_run(features, found) / planted)


def _confirmed(features: pd.DataFrame) -> np.ndarray:
    return features["confirmed"].to_numpy(dtype=bool, na_value=False)


def _each_run(features: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    """Sum of values over the features of each run."""
    runs, index = np.unique(features["run"].to_numpy(), return_inverse=True)
    return np.bincount(index, values, len(runs))


def _mean(features: pd.DataFrame, values: np.ndarray) -> Measured:
    return _measured(_each_run(features, values) / _each_run(features, np.ones(len(values))))


def _measured(of_runs: np.ndarray) -> Measured:
    return Measured(float(of_runs.mean()), float(of_runs.std(ddof=1) / np.sqrt(len(of_runs))))
