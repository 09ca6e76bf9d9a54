"""Whether reported features hold on other text: the same contrast, measured there, with nothing selected on it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, TypeAdapter
from scipy import stats

from stratalens.corpus import Half, Populations
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.hookpoint import Hookpoint
from stratalens.ranking import contrast
from stratalens.ranking.estimates import document_rows
from stratalens.ranking.rank import MAX_Q_VALUE
from stratalens.ranking.separation import separation

MIN_AUROC = 0.6
"""A feature that transfers has a larger AUROC on the other text."""
MIN_RANKED_FEATURES = 3
"""Fewer features have no rank correlation."""
MAX_VALIDATIONS = 64
"""A result has at most so many."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class TransferScore(NamedTuple):
    """How one feature does on one set of other texts."""

    name: str
    """Of the validation."""
    effect: _Finite
    """Mean activation on domain text minus that on general text, over the passages of the sampled documents."""
    effect_low: _Finite
    """Lower end of the 95% interval."""
    effect_high: _Finite
    auroc: _Share
    auroc_low: _Share
    auroc_high: _Share
    p_value: _Share
    q_value: _Share
    """Benjamini-Hochberg over the reported features of all layers."""
    transfers: bool


Scores = Mapping[Hookpoint, Mapping[int, TransferScore]]
"""Hookpoint -> feature -> its score in one validation."""
_SCORES = TypeAdapter(Annotated[list[TransferScore], Field(max_length=MAX_VALIDATIONS)])


def scores_of(text: str) -> list[TransferScore]:
    """The entries of a cell of the column `validations`, one for each validation that tested the feature.

    Raises:
        ValueError: it holds something else.
    """
    return _SCORES.validate_json(text)


def estimates_elsewhere(
    documents: DocumentMatrix, populations: Populations, features: Sequence[int]
) -> dict[str, np.ndarray]:
    """Estimate features on other text, whose documents are all in the discovery half.

    Args:
        documents: one layer's values of the sampled documents.
        populations: those of the other text.
        features: numbers of latents; one that never fires there has an AUROC of 0.5 and a p-value of 1.

    Returns:
        Measure -> its value for each feature, but for `q_value` and `transfers`.
    """
    dense = documents.values[:, list(features)].toarray()
    pooled = document_rows(documents, populations, Half.DISCOVERY)
    x, y = (dense[rows] for rows in pooled)
    passages = [documents.passages[rows] for rows in pooled]
    effect = np.average(x, axis=0, weights=passages[0]) - np.average(y, axis=0, weights=passages[1])
    interval = contrast.difference_interval(effect, x, y, *passages)
    strata = [document_rows(documents, populations, Half.DISCOVERY, at) for at in range(len(populations.strata))]
    found = separation([(dense[domain], dense[general]) for domain, general in strata])
    return {
        "effect": effect,
        "effect_low": interval.low,
        "effect_high": interval.high,
        "auroc": found.auroc,
        "auroc_low": found.interval.low,
        "auroc_high": found.interval.high,
        "p_value": found.p_value,
    }


def transfer_scores(
    name: str, measured: Mapping[Hookpoint, Mapping[str, np.ndarray]], top: Mapping[Hookpoint, pd.DataFrame]
) -> dict[Hookpoint, dict[int, TransferScore]]:
    """Test features on other text: q-values over all layers together, and the verdicts.

    A feature transfers if its effect has the sign that it has in the result, q < 0.05, AUROC > 0.6 and the interval of
    the AUROC lies above 0.5.

    Args:
        name: of the validation.
        measured: hookpoint -> what `estimates_elsewhere` gives for its reported features.
        top: hookpoint -> its reported features, in the same order.
    """
    q = contrast.q_values(np.concatenate([own["p_value"] for own in measured.values()]))
    scores: dict[Hookpoint, dict[int, TransferScore]] = {}
    start = 0
    for hookpoint, own in measured.items():
        table = top[hookpoint]
        q_value, start = q[start : start + len(table)], start + len(table)
        agrees = np.sign(own["effect"]) == np.sign(table["specialization"].to_numpy())
        transfers = agrees & (q_value < MAX_Q_VALUE) & (own["auroc"] > MIN_AUROC) & (own["auroc_low"] > 0.5)
        columns = zip(*(own[field].tolist() for field in TransferScore._fields[1:-2]), q_value, transfers, strict=True)
        rows = [TransferScore._make([name, *map(float, numbers), bool(verdict)]) for *numbers, verdict in columns]
        scores[hookpoint] = dict(zip(table["feature_number"].tolist(), rows, strict=True))
    return scores


def rank_correlation(best_first: Sequence[float]) -> float | None:
    """Spearman's correlation of an order with the AUROC of the ordered features on other text.

    Args:
        best_first: the AUROCs, of the feature first that the result puts first.

    Returns:
        1 where both orders agree; None for fewer than three features, or where all AUROCs are the same.
    """
    if len(best_first) < MIN_RANKED_FEATURES or min(best_first) == max(best_first):
        return None
    return float(np.asarray(stats.spearmanr(-np.arange(len(best_first)), best_first))[0])


def transfers_text(scores: Iterable[TransferScore]) -> str | None:
    """On how many sets of other text a feature transfers, such as `3 of 4`; None where it was tested on none."""
    verdicts = [score.transfers for score in scores]
    return f"{sum(verdicts)} of {len(verdicts)}" if verdicts else None


def claim_passed(scores: Iterable[TransferScore], names: Iterable[str]) -> bool | None:
    """Whether a feature has passed: tested in every validation of the result, and it transfers in all of them.

    Args:
        scores: of the feature.
        names: of all validations of the result.

    Returns:
        None where the feature was not tested in any.
    """
    verdict = {score.name: score.transfers for score in scores}
    return all(verdict.get(name, False) for name in names) if verdict else None


def validations_of(table: pd.DataFrame) -> dict[int, list[TransferScore]]:
    """Feature -> its scores, from the column of `with_validations`; empty for a table without it."""
    if "validations" not in table:
        return {}
    return dict(zip(table["feature_number"].tolist(), map(scores_of, table["validations"]), strict=True))


def with_validations(
    top: Mapping[Hookpoint, pd.DataFrame], validations: Mapping[Hookpoint, Mapping[int, Sequence[TransferScore]]]
) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the columns `transfers` and, in JSON, `validations`.

    Args:
        top: hookpoint -> its reported features.
        validations: hookpoint -> feature -> its scores; features without any are not validated yet.
    """
    return {hookpoint: _with_scores(table, validations.get(hookpoint, {})) for hookpoint, table in top.items()}


def keep_validations(
    top: Mapping[Hookpoint, pd.DataFrame], before: Mapping[Hookpoint, pd.DataFrame]
) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the scores that the same features had in other tables."""
    return with_validations(top, {hookpoint: validations_of(table) for hookpoint, table in before.items()})


def add_scores(top: Mapping[Hookpoint, pd.DataFrame], name: str, scores: Scores) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the scores of one validation, which replace earlier ones of its name."""
    validations = {
        hookpoint: {
            number: [*(own for own in known if own.name != name), scores[hookpoint][number]]
            for number, known in _known(table).items()
        }
        for hookpoint, table in top.items()
    }
    return with_validations(top, validations)


def _known(table: pd.DataFrame) -> dict[int, list[TransferScore]]:
    return {number: [] for number in table["feature_number"].tolist()} | validations_of(table)


def _with_scores(table: pd.DataFrame, validations: Mapping[int, Sequence[TransferScore]]) -> pd.DataFrame:
    own = [validations.get(number, ()) for number in table["feature_number"].tolist()]
    return table.assign(
        transfers=pd.Series([transfers_text(scores) for scores in own], index=table.index, dtype="str"),
        validations=pd.Series(
            [json.dumps([score._asdict() for score in scores]) for scores in own], index=table.index, dtype="str"
        ),
    )
