"""Samples of known truth, taken through the product's own estimates, selection and confirmation.

The latents of many runs stand side by side in one layer, so that they are estimated at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from document_values import ranking_input
from validity_samples import SETTINGS, HarvestValues, Sample

from stratalens.config.result_options import RANK_METRICS
from stratalens.corpus import Half
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInput, estimates
from stratalens.ranking.rank import best_latents, reported_features

RUNS_AT_ONCE = 10
LAYER = Hookpoint(0)
PUBLISHED = (
    *("rank", "confirmed", "q_value", "discovery_specialization", "discovery_auroc"),
    *("specialization", "specialization_low", "specialization_high", "auroc", "auroc_low", "auroc_high"),
)
"""Columns that are judged."""


@dataclass(frozen=True)
class Case:
    """One kind of run."""

    setting: str
    """One of `SETTINGS`."""
    documents: int
    """Of each side in each half."""
    latents: int
    """Latents of a run."""
    top_n: int
    """Features that are selected."""


def reported(values: HarvestValues, case: Case, runs: Sequence[int], *, split: bool = True) -> pd.DataFrame:
    """The reported features of some runs, by every `--rank_by`: what is published of them, and the truth.

    Args:
        values: of the harvest that documents are drawn from.
        case: kind of run.
        runs: numbers of the runs, which are the seeds.
        split: whether features are estimated on other documents than those that selected them.
    """
    parts = []
    for first in range(0, len(runs), RUNS_AT_ONCE):
        own = runs[first : first + RUNS_AT_ONCE]
        seeds = [[list(SETTINGS).index(case.setting), case.documents, run] for run in own]
        draw = SETTINGS[case.setting]
        samples = [draw(values, case.documents, case.latents, np.random.default_rng(seed)) for seed in seeds]
        parts.append(_reported(samples, own, case.top_n, split))
    return pd.concat(parts, ignore_index=True)


def _reported(samples: Sequence[Sample], runs: Sequence[int], top_n: int, split: bool) -> pd.DataFrame:
    source = input_of(_side_by_side(samples))
    halves = (Half.DISCOVERY, Half.CONFIRMATION if split else Half.DISCOVERY)
    discovery, confirmation = (estimates(source, half) for half in halves)
    confirmation["discovery_specialization"] = discovery["specialization"]
    confirmation["discovery_auroc"] = discovery["auroc"]
    needed = {"feature_number", "selected", "live", "p_value", *PUBLISHED, *RANK_METRICS}
    confirmation = confirmation.assign(selected=False).filter(items=sorted(needed))
    tops, orders, first = [], [], 0
    for sample in samples:
        own = slice(first, first + len(sample.auroc))
        first = own.stop
        before, after = (table.iloc[own].reset_index(drop=True) for table in (discovery, confirmation))
        after["feature_number"] = np.arange(len(after))
        for rank_by in RANK_METRICS:
            picked = {LAYER: best_latents(before, rank_by, top_n)}
            # Without a split the program confirms nothing; here it must be seen what it would confirm.
            tops.append(reported_features({LAYER: after}, picked, rank_by=rank_by, split=True)[LAYER])
            orders.append(rank_by)
    return _with_truth(pd.concat(tops, ignore_index=True), np.array([len(top) for top in tops]), orders, samples, runs)


def _with_truth(
    features: pd.DataFrame, rows: np.ndarray, orders: Sequence[str], samples: Sequence[Sample], runs: Sequence[int]
) -> pd.DataFrame:
    """The published columns, and the truth of each feature; `rows` are those of each sample and order in turn."""
    place = np.repeat(np.repeat(np.arange(len(samples)), len(RANK_METRICS)), rows)
    latent = features["feature_number"].to_numpy()
    starts = np.cumsum([0, *(len(sample.auroc) for sample in samples)])
    columns = {"run": np.asarray(runs)[place], "rank_by": np.repeat(orders, rows), "latent": latent}
    for name in ("auroc", "specialization", "group"):
        columns[f"true_{name}"] = np.concatenate([getattr(sample, name) for sample in samples])[starts[place] + latent]
    return features[list(PUBLISHED)].assign(**columns)


def _side_by_side(samples: Sequence[Sample]) -> Sample:
    """The latents of all samples as those of one; the documents of all have the same populations."""
    values = np.concatenate([sample.values for sample in samples], axis=1)
    return replace(samples[0], values=values)


def input_of(sample: Sample) -> RankingInput:
    """What the product ranks from, if the text is the documents of a sample."""
    return ranking_input(sample.values, sample.population, sample.populations, np.ones(sample.values.shape[1]))
