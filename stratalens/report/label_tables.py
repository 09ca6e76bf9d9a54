"""Parts of the tables and files that show a feature's label and the text that fires it."""

from collections.abc import Sequence

import pandas as pd

from stratalens.corpus import Side
from stratalens.corpus.populations import side_name
from stratalens.evidence.examples import Example
from stratalens.labels import FeatureLabel, FeatureReport

LABEL_COLUMNS = FeatureLabel._fields
"""Columns of a feature's label and its scores, last in every table."""
MAX_SENTENCES_PER_SIDE = 8
"""Strongest passages of each side in `feature_sentences`."""
EXAMPLES_PER_SIDE = 3
"""Strongest passages of each side, one column each, in the detailed label file."""
MAX_TOKENS_BEFORE, MAX_TOKENS_AFTER = 24, 12
"""Tokens of an example that are quoted before and after its strongest one."""


def stored_label(row: pd.Series) -> FeatureLabel:
    """The label and its scores in a row of the reported features."""
    return FeatureLabel(**{name: None if pd.isna(row[name]) else row[name] for name in LABEL_COLUMNS})


def sentences(domain: str, reports: Sequence[FeatureReport]) -> dict[int, list[dict[str, object]]]:
    """Feature -> its strongest passages of both sides: the content of `feature_sentences` in a layer's JSON file."""
    return {
        report.feature: [
            {
                "sentence": example.text,
                "activation": example.choice.activation,
                "type": side_name(domain, example.side),
                "peak_token": example.tokens[example.peak].strip(),
            }
            for side in Side
            for example in strongest(report.examples, side)
        ]
        for report in reports
    }


def strongest(passages: list[Example], side: Side) -> list[Example]:
    """The strongest passages of one side, of both halves together, at most `MAX_SENTENCES_PER_SIDE`."""
    top = [example for example in passages if example.side == side and example.choice.kind == "top"]
    return sorted(top, key=lambda example: -example.choice.activation)[:MAX_SENTENCES_PER_SIDE]


def detailed_labels(table: pd.DataFrame, domain: str, reports: Sequence[FeatureReport]) -> pd.DataFrame:
    """The detailed label file of a layer: labels, their scores, and each feature's examples, counted and quoted."""
    lead = ["feature_number", "label", f"{domain}_activation", "general_activation", "specialization"]
    detailed = table[lead].copy()
    examples = {report.feature: report.examples for report in reports}
    own = [examples.get(int(feature), []) for feature in table["feature_number"]]
    sides = [(side_name(domain, side), side) for side in Side]
    for name, side in sides:
        detailed[f"num_{name}_examples"] = [sum(example.side == side for example in passages) for passages in own]
    detailed["site"] = table["site"]
    for column in [name for name in LABEL_COLUMNS if name != "label"]:
        detailed[column] = table[column]
    detailed["flags"] = table["flags"]
    for name, side in sides:
        texts = [[_quote(example) for example in strongest(passages, side)] for passages in own]
        for number in range(EXAMPLES_PER_SIDE):
            detailed[f"{name}_example_{number + 1}"] = [row[number] if number < len(row) else "" for row in texts]
    return detailed


def _quote(example: Example) -> str:
    """The text around the strongest token, which is put in double square brackets."""
    peak = example.peak
    pieces = [
        *example.tokens[max(0, peak - MAX_TOKENS_BEFORE) : peak],
        f"[[{example.tokens[peak]}]]",
        *example.tokens[peak + 1 : peak + 1 + MAX_TOKENS_AFTER],
    ]
    return " ".join("".join(pieces).split())
