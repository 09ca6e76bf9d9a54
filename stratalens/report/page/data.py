"""What the page's scripts work on: the reported features with their evidence, as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stratalens.evidence.logit_lens import TokenLogit
from stratalens.harvest.state.statistics import HISTOGRAM_BINS_PER_DECADE, HISTOGRAM_LOW
from stratalens.ranking.layer_details import (
    LayerDetails,
    SideHistogram,
    SimilarFeature,
    similar_features,
)
from stratalens.report.evidence_file import StoredEvidence, StoredExample
from stratalens.report.formats import json_value
from stratalens.report.page.wording import FLAG_MEANINGS, KINDS
from stratalens.report.run_record import RunFacts
from stratalens.report.tables import Tables, published_name

BACKGROUND_LATENTS = 1500
"""Latents drawn behind the reported ones."""
_NOT_IN_SCRIPTS = {ord(ch): f"\\u{ord(ch):04x}" for ch in "<>&\u2028\u2029"}


def script_json(content: object) -> str:
    """JSON that can stand in a script element, whatever its strings hold."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_NOT_IN_SCRIPTS)


def page_data(
    tables: Tables,
    facts: RunFacts,
    evidence: Mapping[int, Mapping[int, StoredEvidence]],
    details: Mapping[int, LayerDetails],
) -> dict[str, Any]:
    """All that the scripts need.

    Args:
        tables: of the run.
        facts: of the run.
        evidence: layer -> feature -> what fires it.
        details: layer -> what the harvest tells, features in the order of `tables.features`.
    """
    rows = tables.consolidated
    numbers = {layer: table["feature_number"].tolist() for layer, table in tables.features.items()}
    place = {(layer, number): at for layer, own in numbers.items() for at, number in enumerate(own)}
    alike = similar_features(details, numbers)
    passages = _Passages(tables.domain)
    cards = []
    for layer, number in zip(rows["layer"].tolist(), rows["feature_number"].tolist(), strict=True):
        at = place[layer, number]
        histogram, others = details[layer].histograms[at], alike[layer][at]
        cards.append(_card(evidence[layer].get(number), histogram, others, passages))
    return {
        "domain": tables.domain,
        "split": facts.split,
        "layers": sorted(tables.features),
        "flags": FLAG_MEANINGS,
        "kinds": KINDS,
        "histogram": {"low": HISTOGRAM_LOW, "binsPerDecade": HISTOGRAM_BINS_PER_DECADE},
        "features": _columns(rows, tables.domain),
        "cards": cards,
        "passages": passages.shown,
        "background": _background(tables),
    }


def _columns(rows: pd.DataFrame, domain: str) -> dict[str, list[object]]:
    """Column -> values, where measures of the domain side are called `domain_...` whatever the domain."""
    published = {published_name(name, domain): name for name in ("domain_activation", "domain_firing_rate")}
    published |= {published_name(name, domain): name for name in ("domain_density", "domain_max_activation")}
    return {published.get(name, name): [json_value(value) for value in column] for name, column in rows.items()}


class _Passages:
    """The passages that examples show, each once however many features show it."""

    def __init__(self, domain: str):
        self.shown: list[list[object]] = []
        self._domain = domain
        self._place: dict[tuple[object, ...], int] = {}

    def place(self, example: StoredExample) -> int:
        key = (example.side, example.half, *example.tokens)
        if key not in self._place:
            self._place[key] = len(self.shown)
            side = 0 if example.side == self._domain else 1
            self.shown.append([side, int(example.half == "confirmation"), example.tokens])
        return self._place[key]


def _card(
    found: StoredEvidence | None,
    histogram: tuple[SideHistogram, SideHistogram],
    others: Sequence[SimilarFeature],
    passages: _Passages,
) -> dict[str, object]:
    card: dict[str, object] = {
        "histogram": [[side.silent, side.fired] for side in histogram],
        "neighbours": [[layer, feature, round(correlation, 3)] for layer, feature, correlation in others],
    }
    if found is None:
        return card
    return card | {
        "tokens": [[token, _short(share), _short(background)] for token, share, background in found.top_tokens],
        "concepts": [[one.concept, _short(one.preference)] for one in found.concepts],
        "phrases": [[one.phrase, _short(one.preference)] for one in found.phrases],
        "promoted": _tokens(found.promoted),
        "suppressed": _tokens(found.suppressed),
        "examples": [_example(example, passages) for example in found.examples],
    }


def _tokens(tokens: Sequence[TokenLogit] | None) -> list[list[object]]:
    return [[token.token, _short(token.deviation), _short(token.logit)] for token in tokens or ()]


def _example(example: StoredExample, passages: _Passages) -> list[object]:
    """Kind, passage, and the tokens that fire as position, activation, position, activation, ..."""
    fired = [
        value
        for position, activation in enumerate(example.activations)
        if activation > 0
        for value in (position, _short(activation))
    ]
    return [example.kind, passages.place(example), fired]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _background(tables: Tables) -> dict[str, list[object]]:
    """Live latents that are not reported, every so many-th, for the charts."""
    domain = tables.domain
    every = pd.concat([table[table["live"] & ~table["selected"]] for table in tables.latents.values()])
    chosen = every.iloc[np.unique(np.linspace(0, max(0, len(every) - 1), BACKGROUND_LATENTS).astype(int))[: len(every)]]
    columns = {
        "layer": chosen["layer"].tolist(),
        "number": chosen["feature_number"].tolist(),
        "domain": chosen[f"{domain}_activation"],
        "general": chosen["general_activation"],
        "density": (chosen[f"{domain}_density"] + chosen["general_density"]) / 2,
        "auroc": chosen["auroc"],
    }
    return {
        name: [value if isinstance(value, int) else _short(value) for value in values]
        for name, values in columns.items()
    }
