"""What the token test says of a feature: the effect of pasted n-grams, its test, and the verdict."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field, TypeAdapter
from scipy import stats

from stratalens.hookpoint import Hookpoint
from stratalens.ranking.contrast import q_values
from stratalens.ranking.separation import Z
from stratalens.validation.ngrams import MAX_NGRAMS, NGRAM_SIZES

Verdict = Literal["token-driven", "mostly tokens", "context", "undecided"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
LARGE_EFFECT = 0.8
"""Cohen's convention for a large effect."""
MEDIUM_EFFECT = 0.5
"""Cohen's convention for a medium effect."""
MAX_Q = 0.01
MIN_ACTIVE_SHARE = 0.5
"""A feature fires on its own passages if it is active on at least this share of them."""
MAX_NGRAM_CHARACTERS = 200
MAX_PASSAGES = 1_000_000

_Share = Annotated[float, Field(ge=0, le=1)]
_Activation = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=MAX_PASSAGES)]
_NgramText = Annotated[str, Field(max_length=MAX_NGRAM_CHARACTERS)]


class Effect(NamedTuple):
    """A standardised difference of means, with its 95% interval."""

    d: float
    low: float
    high: float


class TokenTestScore(NamedTuple):
    """How one feature does in the token test."""

    verdict: Verdict
    d: float
    """Cohen's d of the snippets with the feature's n-grams against those with random tokens; infinite where both are
    constant and differ."""
    d_low: float
    """Lower end of the 95% interval."""
    d_high: float
    p_value: _Share
    """One-sided, Welch's test."""
    q_value: _Share
    """Benjamini-Hochberg over the features of all layers that were tested together."""
    mean_pasted: _Activation
    mean_control: _Activation
    own_d: float | None
    """The same of windows of the feature's own passages against the snippets with random tokens."""
    own_active_share: _Share | None
    """Share of these windows on which it fires."""
    ngrams: Annotated[list[_NgramText], Field(max_length=MAX_NGRAMS * len(NGRAM_SIZES))]
    """What was pasted, as text."""
    masked_share_kept: _Activation | None = None
    """Share of its activation that is left when the terms of the lexicon are masked."""
    pairs_fired: _Count | None = None
    """Pairs of other senses on whose domain sentence it fires."""
    pairs_silent: _Count | None = None
    """How many of these have another sentence on which it is silent."""

    def has_order(self) -> bool:
        """Whether the numbers fit one another, as those of a test do."""
        fired, silent = self.pairs_fired, self.pairs_silent
        pairs = (fired is None) == (silent is None) and (fired or 0) >= (silent or 0)
        return self.d_low <= self.d <= self.d_high and pairs and not math.isnan(self.own_d or 0)


TokenTestScores = Mapping[Hookpoint, Mapping[int, TokenTestScore]]
"""Hookpoint -> feature -> its score."""
_SCORE: TypeAdapter[TokenTestScore | None] = TypeAdapter(TokenTestScore | None)


def cohens_d(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "m"]) -> Effect:
    """Cohen's d of x against y with the pooled standard deviation, and its large-sample interval.

    0 where both are constant and equal, infinite where both are constant and differ.
    Cohen 1988, *Statistical power analysis for the behavioral sciences*, section 2.2; variance (n + m) / (n m) +
    d^2 / (2 (n + m)): Hedges and Olkin 1985, *Statistical methods for meta-analysis*, section 5.E.
    """
    n, m = len(x), len(y)
    x, y = x.astype(np.float64), y.astype(np.float64)
    if np.ptp(x) == 0 and np.ptp(y) == 0 and x[0] != y[0]:
        infinite = math.copysign(math.inf, x[0] - y[0])
        return Effect(infinite, infinite, infinite)
    squares = ((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()
    deviation = math.sqrt(squares / (n + m - 2))
    d = float(x.mean() - y.mean()) / deviation if deviation > 0 else 0.0
    margin = Z * math.sqrt((n + m) / (n * m) + d**2 / (2 * (n + m)))
    return Effect(d, d - margin, d + margin)


def welch_p(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "m"]) -> float:
    """One-sided p-value that the mean of x exceeds that of y; where both are constant, 0 or 1.

    Welch 1947, by scipy.
    """
    if np.ptp(x) == 0 and np.ptp(y) == 0:
        return 0.0 if x[0] > y[0] else 1.0
    moments = [(own.mean(), own.std(ddof=1), len(own)) for own in (x.astype(np.float64), y.astype(np.float64))]
    tested = stats.ttest_ind_from_stats(*moments[0], *moments[1], equal_var=False, alternative="greater")
    return float(np.asarray(tested)[1])


def verdict_of(effect: Effect, q_value: float, *, fires_on_own: bool) -> Verdict:
    """The verdict on a feature.

    Args:
        effect: of its n-grams against random tokens.
        q_value: of that effect.
        fires_on_own: whether it fires on its own passages, placed in the same way.
    """
    if effect.d >= MEDIUM_EFFECT and q_value < MAX_Q:
        return "token-driven" if effect.d >= LARGE_EFFECT else "mostly tokens"
    return "context" if effect.high < MEDIUM_EFFECT and fires_on_own else "undecided"


class Measured(NamedTuple):
    """The values of one feature in the token test."""

    pasted: Float[np.ndarray, "pasted"]
    control: Float[np.ndarray, "control"]
    own: Float[np.ndarray, "own"]
    """On windows of its own passages; may be empty."""
    ngrams: list[str]
    """What was pasted, as far as it is shown."""
    pasted_any: bool
    """False for a feature without n-grams, which fires on no passage of the half that chooses them."""


def token_test_scores(measured: Sequence[Measured]) -> list[TokenTestScore]:
    """The scores of features that are tested together, without what the reverse measures give.

    A feature without n-grams is undecided.
    """
    effects = [cohens_d(one.pasted, one.control) for one in measured]
    p = np.array([welch_p(one.pasted, one.control) for one in measured])
    scores = []
    for one, effect, p_value, q_value in zip(measured, effects, p.tolist(), q_values(p).tolist(), strict=True):
        own_d = cohens_d(one.own, one.control).d if len(one.own) else None
        active = float((one.own > 0).mean()) if len(one.own) else None
        fires = own_d is not None and own_d >= LARGE_EFFECT and (active or 0) >= MIN_ACTIVE_SHARE
        verdict = verdict_of(effect, q_value, fires_on_own=fires) if one.pasted_any else "undecided"
        means = float(one.pasted.mean(dtype=np.float64)), float(one.control.mean(dtype=np.float64))
        scores.append(TokenTestScore(verdict, *effect, p_value, q_value, *means, own_d, active, one.ngrams))
    return scores


def token_test_of(text: str) -> TokenTestScore | None:
    """The entry of a cell of the column `token_test_scores`; None for a feature that was not tested.

    Raises:
        ValueError: it holds something else.
    """
    score = _SCORE.validate_json(text)
    if score is not None and not score.has_order():
        raise ValueError("numbers of a token test that do not fit one another")
    return score


def token_tests_of(table: pd.DataFrame) -> dict[int, TokenTestScore]:
    """Feature -> its score, from the column of `with_token_tests`; only features that were tested."""
    if "token_test_scores" not in table:
        return {}
    scores = zip(table["feature_number"].tolist(), map(token_test_of, table["token_test_scores"]), strict=True)
    return {number: score for number, score in scores if score is not None}


def with_token_tests(top: Mapping[Hookpoint, pd.DataFrame], scores: TokenTestScores) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the columns `token_test` and, in JSON, `token_test_scores`.

    Args:
        top: hookpoint -> its reported features.
        scores: hookpoint -> feature -> its score; both columns are empty for other features.
    """
    return {hookpoint: _with_scores(table, scores.get(hookpoint, {})) for hookpoint, table in top.items()}


def keep_token_tests(
    top: Mapping[Hookpoint, pd.DataFrame], before: Mapping[Hookpoint, pd.DataFrame]
) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the scores that the same features had in other tables."""
    return with_token_tests(top, {hookpoint: token_tests_of(table) for hookpoint, table in before.items()})


def _with_scores(table: pd.DataFrame, scores: Mapping[int, TokenTestScore]) -> pd.DataFrame:
    own = [scores.get(number) for number in table["feature_number"].tolist()]
    verdicts = [None if score is None else score.verdict for score in own]
    cells = [json.dumps(None if score is None else score._asdict()) for score in own]
    return table.assign(
        token_test=pd.Series(verdicts, index=table.index, dtype="str"),
        token_test_scores=pd.Series(cells, index=table.index, dtype="str"),
    )
