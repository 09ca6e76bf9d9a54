"""Publish effects that were measured: the record, the columns, the tables, and what is shown of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from stratalens.effects.effect_scores import MAX_EFFECT_TEXTS, OWN_TEXT, add_effects
from stratalens.effects.feature_effects import EFFECT_VERDICTS, FeatureEffect, rank_correlation
from stratalens.effects.layer_effects import LayerEffect
from stratalens.errors import ConfigError
from stratalens.hookpoint import Hookpoint
from stratalens.optional_parts import OptionalParts
from stratalens.report.effect_record import EffectRecord, plain_fields
from stratalens.report.effects_file import write_effect_tables
from stratalens.report.formats import json_value
from stratalens.report.run_record import RunRecord
from stratalens.report.saved import Findings, Result
from stratalens.report.tables import with_place
from stratalens.report.validations import publish_scores


@dataclass(frozen=True)
class EffectFacts:
    """On what and how effects were measured; each field is as in `EffectRecord`."""

    digest: str
    text_digest: str
    domain_documents: int
    general_documents: int
    control_documents: int
    tokens: int
    random_draws: int
    matched_sets: int
    noise_floor: float
    dtype: str
    device: str
    seed: int
    name: str = OWN_TEXT
    settings: Mapping[str, object] = field(default_factory=dict)
    ig_steps: int = 0
    removed: Mapping[Hookpoint, Sequence[int]] = field(default_factory=dict)
    dense: Mapping[Hookpoint, Sequence[int]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class MeasuredEffects:
    """What was measured on one text."""

    facts: EffectFacts
    layers: Mapping[Hookpoint, LayerEffect]
    """Hookpoint -> effect of removing its confirmed features together."""
    features: Mapping[Hookpoint, Mapping[int, FeatureEffect]]
    """Hookpoint -> feature that was ablated by itself -> its effect."""
    attributions: Mapping[Hookpoint, pd.DataFrame]
    """Hookpoint -> live latents: `feature_number`, `domain_attribution`, `general_attribution` and
    `attribution_difference` with their standard errors (`..._se`), in nats a token, means over documents."""
    tasks: Mapping[Hookpoint, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    """Hookpoint -> effects on tasks, in rows of plain values."""


def effect_record(measured: MeasuredEffects) -> EffectRecord:
    """The record of what was measured, made now."""
    facts = measured.facts
    verdicts = Counter(effect.verdict for own in measured.features.values() for effect in own.values())
    content: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: getattr(facts, name) for name in EffectFacts.__dataclass_fields__},
        "features": verdicts.total(),
        "verdicts": {verdict: verdicts[verdict] for verdict in EFFECT_VERDICTS if verdicts[verdict]},
        "layers": {str(place): plain_fields(effect) for place, effect in sorted(measured.layers.items())},
        "attributed": [str(place) for place in sorted(measured.attributions)],
        "rank_correlation": rank_correlation(measured.features),
        "removed": _by_name(facts.removed),
        "dense": _by_name(facts.dense),
        "tasks": {str(place): [dict(row) for row in own] for place, own in sorted(measured.tasks.items())},
    }
    return EffectRecord.model_validate(json_value(content))


def _by_name(latents: Mapping[Hookpoint, Sequence[int]]) -> dict[str, list[int]]:
    return {str(place): [int(number) for number in own] for place, own in sorted(latents.items()) if len(own)}


def with_effect_record(record: RunRecord, effect: EffectRecord) -> RunRecord:
    """The record of a run with that of effects on one text, which takes the place of an earlier one of its name.

    Raises:
        ConfigError: the result has effects on as many texts as it may.
    """
    known = {one.name: one for one in record.effects} | {effect.name: effect}
    if len(known) > MAX_EFFECT_TEXTS:
        raise ConfigError(
            f"the result has effects on {MAX_EFFECT_TEXTS} texts, and no more are kept; give --name the name of one "
            "of them to measure it again"
        )
    return record.model_copy(update={"effects": list(known.values())})


def with_measured(findings: Findings, measured: MeasuredEffects) -> Findings:
    """The findings with the effects in the rows of the reported features, and their attributions on the own text."""
    top = add_effects(findings.top, measured.facts.name, measured.features)
    if measured.facts.name == OWN_TEXT:
        top = {place: _with_attribution(table, measured.attributions.get(place)) for place, table in top.items()}
    return replace(findings, top=top)


def _with_attribution(table: pd.DataFrame, attributions: pd.DataFrame | None) -> pd.DataFrame:
    """Reported features with the column `attribution`; nothing for those that fire on no document that was read."""
    if attributions is None:
        return table.assign(attribution=float("nan"))
    known = attributions.set_index("feature_number")["attribution_difference"].astype("float64")
    return table.assign(attribution=known.reindex(table["feature_number"]).to_numpy())


def write_attributions(measured: MeasuredEffects, record: EffectRecord, directory: Path) -> None:
    """Write the attributions of all live latents, a file for each layer; no later command makes them again."""
    for place, name in record.attribution_files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with_place(measured.attributions[place], place).to_parquet(path, index=False)


def publish_effects(result: Result, measured: MeasuredEffects, staging: Path, parts: OptionalParts) -> Result:
    """Write the tables, the page and the record of a result with effects on one text that were measured.

    Args:
        result: as it was before.
        measured: what was measured; it takes the place of what was measured before on a text of the same name.
        staging: where the files are written.
        parts: figures and page are optional.

    Returns:
        The result as it is now.

    Raises:
        ConfigError: the result has effects on as many texts as it may, or a file of it is damaged.
    """
    effect = effect_record(measured)
    record = with_effect_record(result.record, effect)
    now = replace(result, findings=with_measured(result.findings, measured), record=record)
    write_attributions(measured, effect, staging)
    write_effect_tables(now.tables, [effect], staging)
    return publish_scores(result, now, staging, parts)
