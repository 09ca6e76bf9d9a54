"""What each column of the stored tables holds, and a check that a table that is read back holds nothing else."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stratalens.effects.effect_scores import effect_entries
from stratalens.effects.feature_effects import EFFECT_VERDICTS
from stratalens.files.damaged import damaged
from stratalens.labels.feature_report import LexiconShares
from stratalens.ranking.by_part import parts_of
from stratalens.ranking.rank import TOP_N_PROBABILITY
from stratalens.report.evidence_file import MAX_NUMBER
from stratalens.report.label_tables import LABEL_COLUMNS
from stratalens.report.tables import MEASURES
from stratalens.validation.token_verdicts import VERDICTS, token_test_of
from stratalens.validation.transfer import scores_of


class ColumnKind(NamedTuple):
    """What a column may hold."""

    words: str
    """As a message names it."""
    fits: Callable[[pd.Series], bool]
    """Whether a column holds that."""


def _numbers(words: str, allowed: Callable[[np.ndarray], np.ndarray]) -> ColumnKind:
    return ColumnKind(words, lambda column: _is_numeric(column) and bool(allowed(column.to_numpy(np.float64)).all()))


def _is_numeric(column: pd.Series, kinds: str = "fiu") -> bool:
    return isinstance(column.dtype, np.dtype) and column.dtype.kind in kinds


def _is_plain(values: np.ndarray) -> np.ndarray:
    """Where values are neither too large for sums nor, unless they are 0, too small for the axis of a figure."""
    sizes = np.abs(values)
    return (sizes == 0) | ((sizes >= 1 / MAX_NUMBER) & (sizes <= MAX_NUMBER))


def _is_empty(column: pd.Series) -> bool:
    return column.dtype == object and bool(column.isna().all())


def _is_text(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.StringDtype):
        return True
    return column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty")


def _are_scores(text: str) -> bool:
    """Whether a cell holds the scores of a feature in validations, each once, with AUROCs in their intervals."""
    try:
        scores = scores_of(text)
    except ValueError:
        return False
    ordered = all(score.auroc_low <= score.auroc <= score.auroc_high for score in scores)
    return ordered and len({score.name for score in scores}) == len(scores)


def _is_token_test(text: str) -> bool:
    """Whether a cell holds the score of a feature in a token test, or says that it was not tested."""
    try:
        token_test_of(text)
    except ValueError:
        return False
    return True


def _are_effects(text: str) -> bool:
    """Whether a cell holds the effects of removing a feature, one for each text."""
    try:
        effect_entries(text)
    except ValueError:
        return False
    return True


def _is_parts(text: str) -> bool:
    """Whether a cell holds the AUROCs of some parts of the text, finite ones and within their intervals."""
    try:
        return all(0 <= part.low <= part.auroc <= part.high <= 1 for part in parts_of(text))
    except ValueError:
        return False


FINITE = _numbers("finite numbers", _is_plain)
MEASURED = _numbers("finite numbers", lambda values: np.isnan(values) | _is_plain(values))
"""Nothing for a dead latent."""
EFFECT = _numbers("numbers", lambda values: np.ones(len(values), dtype=bool))
"""Infinite where both sides are constant and differ."""
PROBABILITY = _numbers("probabilities", lambda values: np.isnan(values) | ((values >= 0) & (values <= 1)))
SCORE = ColumnKind("finite numbers", lambda column: _is_empty(column) or MEASURED.fits(column))
"""Nothing for a label without a score; a result without any has a column of nothing."""
INTEGER = ColumnKind("whole numbers", lambda column: _is_numeric(column, "iu"))
CONDITION = ColumnKind("true and false", lambda column: _is_numeric(column, "b"))
VERDICT = ColumnKind("true, false or nothing", pd.api.types.is_bool_dtype)
"""Nothing where no documents were reserved for confirmation."""
RANK = ColumnKind("whole numbers or nothing", lambda column: column.dtype == "Int64" or _is_numeric(column, "iu"))
"""Nothing for a dead latent."""
PARTS = ColumnKind("lists of AUROCs", lambda column: _is_text(column) and all(map(_is_parts, column)))
SCORES = ColumnKind("scores of validations", lambda column: _is_text(column) and all(map(_are_scores, column)))
TOKEN_VERDICT = ColumnKind("verdicts", lambda column: _is_text(column) and bool(column.dropna().isin(VERDICTS).all()))
TOKEN_TESTS = ColumnKind("scores of a token test", lambda column: _is_text(column) and all(map(_is_token_test, column)))
EFFECT_VERDICT = ColumnKind(
    "verdicts", lambda column: _is_text(column) and bool(column.dropna().isin(EFFECT_VERDICTS).all())
)
EFFECTS = ColumnKind("effects", lambda column: _is_text(column) and all(map(_are_effects, column)))
TEXT = ColumnKind("texts", lambda column: _is_text(column) and not column.isna().any())
NOTE = ColumnKind("texts", _is_text)

OF_DEAD_LATENTS = (
    *("domain_activation", "general_activation", "specialization", "normalised_specialization"),
    *("discovery_specialization", "firing_rate_difference", "domain_firing_rate", "general_firing_rate"),
    *("domain_density", "general_density", "domain_max_activation", "general_max_activation", "decoder_norm"),
)
"""Measures that dead latents have as well."""
OPTIONAL_COLUMNS: Mapping[str, ColumnKind] = {
    "site": TEXT,
    "pooled_auroc": PROBABILITY,
    "transfer": MEASURED,
    "transfer_rank": RANK,
    "auroc_by_kind": PARTS,
    "auroc_by_source": PARTS,
    "transfers": NOTE,
    "causal": VERDICT,
    "claims": TEXT,
    "validations": SCORES,
    TOP_N_PROBABILITY: PROBABILITY,
    **dict.fromkeys(LexiconShares._fields, PROBABILITY),
    "opposed_rank": RANK,
    "opposed_p_value": PROBABILITY,
    "opposed_q_value": PROBABILITY,
    "opposed_confirmed": VERDICT,
    "token_test": TOKEN_VERDICT,
    "token_test_scores": TOKEN_TESTS,
    "effect": EFFECT_VERDICT,
    "effect_scores": EFFECTS,
    "attribution": MEASURED,
    "seed_match": MEASURED,
}
"""Columns that results of earlier versions lack -> what they hold."""
_MEASURES: dict[str, ColumnKind] = {
    "feature_number": INTEGER,
    "layer": INTEGER,
    **dict.fromkeys((name for name in MEASURES if name not in OPTIONAL_COLUMNS), MEASURED),
    **dict.fromkeys(OF_DEAD_LATENTS, FINITE),
    "p_value": PROBABILITY,
    "q_value": PROBABILITY,
    "hedges_g": EFFECT,
    "flags": TEXT,
}
COLUMNS_OF_LATENTS: Mapping[str, ColumnKind] = {
    **{name: kind for name, kind in _MEASURES.items() if name != "confirmed"},
    "selected": CONDITION,
    "live": CONDITION,
}
"""Column of a table of all latents, by its name in the ranking -> what it holds."""
COLUMNS_OF_FEATURES: Mapping[str, ColumnKind] = {
    **_MEASURES,
    "rank": INTEGER,
    "confirmed": VERDICT,
    **dict.fromkeys(LABEL_COLUMNS, SCORE),
    **dict.fromkeys(("detection_examples", "fuzzing_examples"), INTEGER),
    **dict.fromkeys(("label", "label_source"), TEXT),
    **dict.fromkeys(("label_judge", "label_note"), NOTE),
}
"""Column of the table of reported features -> what it holds."""


def require_columns(path: Path, table: pd.DataFrame, columns: Mapping[str, ColumnKind]) -> None:
    """Check that a table has all columns, each once, and that they hold what a run writes; it may have others.

    Args:
        path: the file of the table, for the message.
        table: its content.
        columns: name -> what that column holds.

    Raises:
        ConfigError: a column is missing, occurs twice, or holds something else.
    """
    if missing := sorted(set(columns) - set(table.columns)):
        raise damaged(path, f"no column {', '.join(missing[:3])}")
    if not table.columns.is_unique:
        raise damaged(path, "two columns of the same name")
    there = {name: kind for name, kind in OPTIONAL_COLUMNS.items() if name in table}
    for name, kind in {**columns, **there}.items():
        if not kind.fits(table[name]):
            raise damaged(path, f"the column {name} does not hold {kind.words}")


def require_measured(path: Path, latents: pd.DataFrame) -> None:
    """Check that every latent that fires has all measures; only dead ones lack some.

    Args:
        path: the file of the table, for the message.
        latents: all latents of a layer, with the columns of `COLUMNS_OF_LATENTS`.

    Raises:
        ConfigError: one lacks a measure.
    """
    measured = [name for name, kind in COLUMNS_OF_LATENTS.items() if kind in (MEASURED, PROBABILITY)]
    lacking = latents.loc[latents["live"], measured].isna().any()
    if lacking.any():
        raise damaged(path, f"the column {lacking.idxmax()} holds nothing for a latent that fires")
