"""Each claim is passed by its own test alone, is empty where that was not made, and is counted of those tested."""

import json

import pandas as pd
import pytest

from stratalens.validation.claims import CLAIMS, claim_counts, claim_verdicts, claims_text, counts_sentence
from stratalens.validation.transfer import TransferScore


def scores(**verdicts: bool) -> str:
    """A cell of the column `validations`: name of a validation -> whether the feature transfers there."""
    numbers = (1.0, 0.5, 1.5, 0.8, 0.7, 0.9, 0.001, 0.002)
    return json.dumps([TransferScore(name, *numbers, passed)._asdict() for name, passed in verdicts.items()])


@pytest.fixture
def table() -> pd.DataFrame:
    """Six features: of every test one that passed, one that failed and one that was not put to it."""
    return pd.DataFrame(
        {
            "feature_number": [5, 3, 8, 1, 9, 2],
            "confirmed": pd.array([True, False, pd.NA, False, False, True], dtype="boolean"),
            "validations": [
                scores(a=True, b=True),
                scores(a=True, b=False),
                scores(a=True),
                scores(),
                scores(),
                scores(),
            ],
            "token_test": ["token-driven", None, "undecided", "context", "mostly tokens", None],
            "causal": pd.array([pd.NA, pd.NA, pd.NA, False, True, pd.NA], dtype="boolean"),
        }
    )


def test_each_test_has_a_verdict_of_its_own(table):
    verdicts = claim_verdicts(table, ["a", "b"])
    assert verdicts.columns.tolist() == ["confirmed", "transfers", "token_test", "causal"]
    assert [[None if pd.isna(one) else bool(one) for one in row] for row in verdicts.to_numpy(object)] == [
        [True, True, False, None],
        [False, False, None, None],
        [None, False, False, None],  # not validated on b
        [False, None, True, False],
        [False, None, False, True],
        [True, None, None, None],
    ]


def test_the_claims_are_those_that_were_passed(table):
    verdicts = claim_verdicts(table, ["a", "b"])
    assert claims_text(verdicts).tolist() == ["confirmed; transfers", "", "", "token_test", "causal", "confirmed"]


@pytest.mark.parametrize("column", [claim.column for claim in CLAIMS])
def test_no_claim_is_implied_by_another(table, column):
    """A feature that passed one test alone has this claim alone."""
    alone = pd.DataFrame({"feature_number": [1]}).assign(
        validations=scores(a=column == "transfers") if column == "transfers" else scores()
    )
    if column != "transfers":
        alone[column] = ["context"] if column == "token_test" else pd.array([True], dtype="boolean")
    assert claims_text(claim_verdicts(alone, ["a"] if column == "transfers" else [])).tolist() == [column]


def test_counts_are_of_the_features_that_were_tested(table):
    verdicts = claim_verdicts(table, ["a", "b"])
    counts = claim_counts([verdicts.iloc[:2], verdicts.iloc[2:]])
    assert [(own.claim.column, own.passed, own.tested) for own in counts] == [
        ("confirmed", 2, 5),
        ("transfers", 1, 3),
        ("token_test", 1, 4),
        ("causal", 1, 2),
    ]
    untested = claim_counts([claim_verdicts(table[["feature_number", "confirmed"]], [])])
    assert counts_sentence(untested) == (
        "confirmed 2 of 5 tested; transfers not tested; in context not tested; causal not tested"
    )
