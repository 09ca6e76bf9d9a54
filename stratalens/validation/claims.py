"""Which tests each reported feature was put to, and which it has passed. No test is implied by another."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from stratalens.validation.token_verdicts import Verdict
from stratalens.validation.transfer import claim_passed, validations_of

IN_CONTEXT: Verdict = "context"
"""The verdict of the token test by which a feature passes it."""


class Claim(NamedTuple):
    """What passing one test says of a feature."""

    column: str
    """Of the tables, empty where the test was not made."""
    title: str
    """On a badge."""
    says: str
    untested: str
    """Why a feature may not have been tested, or how to test it."""


CLAIMS = (
    Claim(
        "confirmed",
        "confirmed",
        "holds on other documents of the same text",
        "too few documents to hold any out",
    ),
    Claim(
        "transfers",
        "transfers",
        "holds on every text of other origin on which it was tested",
        "stratalens validate does it",
    ),
    Claim(
        "token_test",
        "in context",
        "fires in its context, and not on a few of its tokens pasted into other text",
        "stratalens token_test does it",
    ),
    Claim(
        "causal",
        "causal",
        "without it the model loses more on the domain than on general text",
        "stratalens effect does it",
    ),
)
"""In the order of the columns."""


class ClaimCount(NamedTuple):
    """How many features passed a test."""

    claim: Claim
    passed: int
    tested: int


def claim_verdicts(table: pd.DataFrame, validation_names: Iterable[str]) -> pd.DataFrame:
    """Whether each feature passed each test, in columns of true, false and nothing, named as the claims.

    Args:
        table: reported features.
        validation_names: of all validations of the result, in each of which a feature must transfer.
    """
    names = list(validation_names)
    scores = validations_of(table)
    token_test = [None if pd.isna(verdict) else verdict == IN_CONTEXT for verdict in _column(table, "token_test")]
    verdicts: dict[str, list[bool | None]] = {
        "confirmed": [None if pd.isna(verdict) else bool(verdict) for verdict in _column(table, "confirmed")],
        "transfers": [claim_passed(scores.get(number, ()), names) for number in table["feature_number"].tolist()],
        "token_test": token_test,
        "causal": [None if pd.isna(verdict) else bool(verdict) for verdict in _column(table, "causal")],
    }
    columns = {claim.column: pd.array(verdicts[claim.column], dtype="boolean") for claim in CLAIMS}
    return pd.DataFrame(columns, index=table.index)


def _column(table: pd.DataFrame, name: str) -> list[Any]:
    """The values of a column; nothing for each feature where there is no such column."""
    return table[name].tolist() if name in table else [None] * len(table)


def claims_text(verdicts: pd.DataFrame) -> pd.Series:
    """The tests that each feature has passed, such as `confirmed; transfers`; empty where it passed none."""
    passed = verdicts.fillna(False).astype(bool)
    return pd.Series(
        ["; ".join(str(name) for name, yes in row.items() if yes) for row in passed.to_dict("records")],
        index=verdicts.index,
        dtype="str",
    )


def claim_counts(verdicts: Iterable[pd.DataFrame]) -> list[ClaimCount]:
    """How many of the features of all hookpoints passed each test, of those that were put to it."""
    rows = [row for own in verdicts for row in own.to_dict("records")]
    counts = []
    for claim in CLAIMS:
        tested = [bool(row[claim.column]) for row in rows if pd.notna(row[claim.column])]
        counts.append(ClaimCount(claim, sum(tested), len(tested)))
    return counts


def counts_sentence(counts: Iterable[ClaimCount]) -> str:
    """One line, such as `confirmed 131 of 150 tested; transfers not tested`."""
    told = [
        f"{own.claim.title} {own.passed} of {own.tested} tested" if own.tested else f"{own.claim.title} not tested"
        for own in counts
    ]
    return "; ".join(told)
