"""The data of the page as JSON: the reported features with their evidence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stratalens.effects.effect_scores import OWN_TEXT, FeatureTextEffect
from stratalens.evidence.logit_lens import TokenLogit
from stratalens.harvest.state.statistics import HISTOGRAM_BINS_PER_DECADE, HISTOGRAM_LOW
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.by_part import TextParts
from stratalens.ranking.layer_details import (
    LayerDetails,
    SideHistogram,
    SimilarFeature,
    similar_features,
)
from stratalens.report.effect_sentences import effect_lines
from stratalens.report.evidence_file import StoredEvidence, StoredExample
from stratalens.report.formats import json_value
from stratalens.report.page.wording import FLAG_MEANINGS, KINDS
from stratalens.report.run_record import RunRecord
from stratalens.report.tables import Tables, places, published_name
from stratalens.report.token_test_sentences import NOT_TESTED, token_test_lines
from stratalens.validation.token_verdicts import TokenTestScore
from stratalens.validation.transfer import TransferScore

MAX_BACKGROUND_LATENTS = 1500
"""Latents that are not reported and that the charts show in grey behind the reported ones."""
_SCRIPT_ESCAPES = {ord(ch): f"\\u{ord(ch):04x}" for ch in "<>&\u2028\u2029"}
"""Characters that could end or break a script element -> their JSON escapes."""


def script_json(content: object) -> str:
    """JSON text that is safe inside an HTML script element, whatever its strings contain.

    Raises:
        ValueError: the content holds NaN or infinity.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_SCRIPT_ESCAPES)


def page_data(
    tables: Tables,
    record: RunRecord,
    evidence: Mapping[Hookpoint, Mapping[int, StoredEvidence]],
    details: Mapping[Hookpoint, LayerDetails],
) -> dict[str, Any]:
    """Collect all that the page's scripts need, as plain JSON values.

    Args:
        tables: the tables of the run.
        record: of the run.
        evidence: hookpoint -> feature -> its stored evidence; features without any may be missing.
        details: hookpoint -> histograms and values of documents, features in the order of `tables.features`.
    """
    rows = tables.consolidated
    numbers = {hookpoint: table["feature_number"].tolist() for hookpoint, table in tables.features.items()}
    positions = {(hookpoint, number): at for hookpoint, own in numbers.items() for at, number in enumerate(own)}
    neighbours = similar_features(details, numbers)
    passages = _Passages(tables.domain)
    cards = []
    keys = list(zip(map(Hookpoint.parse, places(rows)), rows["feature_number"].tolist(), strict=True))
    for hookpoint, number in keys:
        at = positions[hookpoint, number]
        histogram, similar = details[hookpoint].histograms[at], neighbours[hookpoint][at]
        card = _card(evidence[hookpoint].get(number), histogram, similar, passages)
        card |= _scores(tables.validations[hookpoint].get(number, ()), record)
        card |= _token_test(tables.token_tests[hookpoint].get(number), record)
        card |= _effects(tables.effects[hookpoint].get(number, ()), record)
        card |= _parts(tables.parts[hookpoint].get(number))
        cards.append(card | {"passed": json_value(tables.verdicts[hookpoint].iloc[at].tolist())})
    return {
        "domain": tables.domain,
        "split": record.split,
        "claims": [{**own.claim._asdict(), "tested": own.tested} for own in tables.claims],
        "effects": any(effect.is_own_text for effect in record.effects),
        "kindsOfText": len(record.populations.strata),
        "hookpoints": [str(hookpoint) for hookpoint in sorted(tables.features)],
        "flags": FLAG_MEANINGS,
        "kinds": KINDS,
        "histogram": {"low": HISTOGRAM_LOW, "binsPerDecade": HISTOGRAM_BINS_PER_DECADE},
        "features": _columns(rows, tables.domain),
        "places": places(rows),
        "cards": cards,
        "passages": passages.entries,
        "background": _background(tables),
    }


def _columns(rows: pd.DataFrame, domain: str) -> dict[str, list[object]]:
    """Column -> values; measures of the domain side are named `domain_...`, whatever the domain is called."""
    published = {published_name(name, domain): name for name in ("domain_activation", "domain_firing_rate")}
    published |= {published_name(name, domain): name for name in ("domain_density", "domain_max_activation")}
    return {published.get(name, name): [json_value(value) for value in column] for name, column in rows.items()}


class _Passages:
    """The passages of all examples, each stored once even if it is an example of several features."""

    def __init__(self, domain: str):
        self.entries: list[list[object]] = []
        """Of each passage: side (0: domain, 1: general), half (0: discovery, 1: confirmation), tokens."""
        self._domain = domain
        self._index: dict[tuple[object, ...], int] = {}

    def index_of(self, example: StoredExample) -> int:
        """Index in `entries` of an example's passage, which is added if it is new."""
        key = (example.side, example.half, *example.tokens)
        if key not in self._index:
            self._index[key] = len(self.entries)
            side = 0 if example.side == self._domain else 1
            self.entries.append([side, int(example.half == "confirmation"), example.tokens])
        return self._index[key]


def _card(
    evidence: StoredEvidence | None,
    histogram: tuple[SideHistogram, SideHistogram],
    similar: Sequence[SimilarFeature],
    passages: _Passages,
) -> dict[str, object]:
    """What the card of one feature shows besides the columns of the table."""
    card: dict[str, object] = {
        "histogram": [[side.silent, side.fired] for side in histogram],
        "neighbours": [[str(hookpoint), feature, round(correlation, 3)] for hookpoint, feature, correlation in similar],
    }
    if evidence is None:
        return card
    return card | {
        "tokens": [[token, _short(share), _short(background)] for token, share, background in evidence.top_tokens],
        "concepts": [[concept.concept, _short(concept.preference)] for concept in evidence.concepts],
        "phrases": [[phrase.phrase, _short(phrase.preference)] for phrase in evidence.phrases],
        "promoted": _tokens(evidence.promoted),
        "suppressed": _tokens(evidence.suppressed),
        "examples": [_example(example, passages) for example in evidence.examples],
    }


def _parts(parts: TextParts | None) -> dict[str, object]:
    """AUROCs by kind and by source: name, side of a source, AUROC, interval, documents of both sides."""
    if parts is None:
        return {}
    return {
        name: [[part.name, part.side, *map(_short, part[2:5]), *part[5:]] for part in own]
        for name, own in parts._asdict().items()
    }


def _scores(scores: Sequence[TransferScore], record: RunRecord) -> dict[str, object]:
    """Of each validation of the result: name, verdict, effect, AUROC, interval, q-value; nothing where not tested."""
    known = {score.name: score for score in scores}
    rows: list[list[object]] = []
    for name in (own.name for own in record.validations):
        score = known.get(name)
        numbers = () if score is None else (score.effect, score.auroc, score.auroc_low, score.auroc_high, score.q_value)
        rows.append([name, None if score is None else score.transfers, *map(_short, numbers)])
    return {"validations": rows} if rows else {}


def _token_test(score: TokenTestScore | None, record: RunRecord) -> dict[str, object]:
    """Lines on the token test; nothing where none was made."""
    if record.token_test is None:
        return {}
    return {"tokenTest": [NOT_TESTED] if score is None else token_test_lines(score)}


def _effects(entries: Sequence[FeatureTextEffect], record: RunRecord) -> dict[str, object]:
    """Lines on what removing the feature does, and the numbers on the run's own text; nothing where none was removed.

    The numbers: verdict, what the domain loses more than general text, its interval, q-value.
    """
    if not record.effects:
        return {}
    own = next((entry.effect for entry in entries if entry.name == OWN_TEXT), None)
    lines = {"effectLines": effect_lines(entries, record.effects, record.domain)}
    if own is None:
        return lines
    numbers = (own.difference, own.difference_low, own.difference_high, own.q_value)
    return lines | {"effect": [own.verdict, *map(_short, numbers)]}


def _tokens(tokens: Sequence[TokenLogit] | None) -> list[list[object]]:
    return [[token.token, _short(token.deviation), _short(token.logit)] for token in tokens or ()]


def _example(example: StoredExample, passages: _Passages) -> list[object]:
    """Kind, index of the passage, and the firing tokens as [position, activation, position, activation, ...]."""
    fired = [
        value
        for position, activation in enumerate(example.activations)
        if activation > 0
        for value in (position, _short(activation))
    ]
    return [example.kind, passages.index_of(example), fired]


def _short(value: float) -> float:
    """The value rounded to four significant digits, to keep the page small."""
    return float(f"{value:.4g}")


def _background(tables: Tables) -> dict[str, list[object]]:
    """Evenly spaced live latents that are not reported, at most MAX_BACKGROUND_LATENTS, as columns for the charts."""
    domain = tables.domain
    unreported = pd.concat([table[table["live"] & ~table["selected"]] for table in tables.latents.values()])
    positions = np.linspace(0, max(0, len(unreported) - 1), MAX_BACKGROUND_LATENTS).astype(int)
    chosen = unreported.iloc[np.unique(positions)[: len(unreported)]]
    columns = {
        "hookpoint": places(chosen),
        "number": chosen["feature_number"].tolist(),
        "domain": chosen[f"{domain}_activation"],
        "general": chosen["general_activation"],
        "density": (chosen[f"{domain}_density"] + chosen["general_density"]) / 2,
        "auroc": chosen["auroc"],
    }
    return {
        name: [value if isinstance(value, int | str) else _short(value) for value in values]
        for name, values in columns.items()
    }
