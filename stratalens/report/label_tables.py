"""What the tables say of a feature's label and of the text that fires it."""

from collections.abc import Mapping

import pandas as pd

from stratalens.corpus import Side
from stratalens.evidence.examples import Example
from stratalens.labels import FeatureLabel

LABEL_COLUMNS = FeatureLabel._fields
"""Columns of a feature's label and its scores, last in every table."""
SENTENCES = 8
"""Strongest passages a side in `feature_sentences`."""
EXAMPLE_COLUMNS = 3
"""Strongest passages a side in the detailed label file."""
WORDS_BEFORE, WORDS_AFTER = 24, 12
"""Tokens of an example around its strongest one."""


def stored_label(row: pd.Series) -> FeatureLabel:
    """The label of a row of reported features."""
    return FeatureLabel(**{name: None if pd.isna(row[name]) else row[name] for name in LABEL_COLUMNS})


def sentences(domain: str, examples: Mapping[int, list[Example]]) -> dict[int, list[dict[str, object]]]:
    """Feature -> its strongest passages of both sides, as the brief's JSON holds them."""
    return {
        feature: [
            {
                "sentence": one.text,
                "activation": one.choice.activation,
                "type": domain if one.side == Side.DOMAIN else "general",
                "peak_token": one.tokens[one.peak].strip(),
            }
            for side in Side
            for one in strongest(passages, side)
        ]
        for feature, passages in examples.items()
    }


def strongest(passages: list[Example], side: Side) -> list[Example]:
    """The strongest passages of one side, both halves together."""
    top = [one for one in passages if one.side == side and one.choice.kind == "top"]
    return sorted(top, key=lambda one: -one.choice.activation)[:SENTENCES]


def detailed_labels(table: pd.DataFrame, domain: str, examples: Mapping[int, list[Example]]) -> pd.DataFrame:
    """One layer's labels with their scores and the passages that fire each feature, counted and quoted."""
    lead = ["feature_number", "label", f"{domain}_activation", "general_activation", "specialization"]
    detailed = table[lead].copy()
    own = [examples.get(int(feature), []) for feature in table["feature_number"]]
    sides = ((domain, Side.DOMAIN), ("general", Side.GENERAL))
    for name, side in sides:
        detailed[f"num_{name}_examples"] = [sum(one.side == side for one in passages) for passages in own]
    for column in [name for name in LABEL_COLUMNS if name != "label"]:
        detailed[column] = table[column]
    detailed["flags"] = table["flags"]
    for name, side in sides:
        texts = [[_marked(one) for one in strongest(passages, side)] for passages in own]
        for place in range(EXAMPLE_COLUMNS):
            detailed[f"{name}_example_{place + 1}"] = [row[place] if place < len(row) else "" for row in texts]
    return detailed


def _marked(one: Example) -> str:
    """The words around the strongest token, which stands in double square brackets."""
    peak = one.peak
    pieces = [
        *one.tokens[max(0, peak - WORDS_BEFORE) : peak],
        f"[[{one.tokens[peak]}]]",
        *one.tokens[peak + 1 : peak + 1 + WORDS_AFTER],
    ]
    return " ".join("".join(pieces).split())
