"""What the section of the page on effects shows of each text, as texts and positions on a scale."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stratalens.effects.layer_effects import Excess, LayerEffect
from stratalens.report.effect_record import EffectRecord, TaskCell
from stratalens.report.effect_sentences import (
    LAYER_VERDICT_MEANINGS,
    best_layers_sentence,
    headline,
    method_sentences,
    plain_numbers,
    probability_text,
    stale_sentences,
)
from stratalens.report.run_record import RunRecord
from stratalens.report.tables import Tables, places

MARGIN_PERCENT = 3.0
"""Of the scale, on both sides of what is drawn on it."""


class Band(NamedTuple):
    """A range on the scale of a layer's row, in percent of its width."""

    left: float
    width: float


class Track(NamedTuple):
    """A layer's difference and its controls, on one scale for all layers."""

    zero: float
    value: float
    interval: Band
    random: Band | None
    matched: Band | None


class Measure(NamedTuple):
    """A number, and the lines below it: its interval, and what else there is to say of it."""

    value: str
    below: list[str]


class EffectRow(NamedTuple):
    """A layer's row."""

    hookpoint: str
    features: int
    domain: Measure
    general: Measure
    difference: Measure
    track: Track
    track_text: str
    """What the drawing shows, for those who do not see it."""
    random: Measure
    matched: Measure
    matched_ratio: tuple[str, str]
    """On domain and on general text."""
    verdict: str
    meaning: str
    shown: bool
    """Whether the domain is shown to lose more."""
    by_class: list[tuple[str, str, str]]
    """Loss by class of token, KL and loss by norm: name, on domain text, on general text."""


class TaskTable(NamedTuple):
    """Effects on tasks."""

    head: list[tuple[str, bool]]
    """Of each column: its title, and whether it holds numbers."""
    rows: list[tuple[str, list[str]]]
    """Of each: hookpoint, and its cells."""


class EffectSection(NamedTuple):
    """What is shown of the effects on one text."""

    name: str
    """Empty for the run's own text."""
    headline: str
    best_layers: str
    warnings: list[str]
    rows: list[EffectRow]
    """Best layer by effect first."""
    features: str
    tasks: TaskTable | None
    sentences: list[str]


def effect_sections(tables: Tables, record: RunRecord) -> list[EffectSection]:
    """What the page shows of the effects on each text.

    Args:
        tables: of the result.
        record: of the run.
    """
    confirmed = {
        str(place): table.loc[table["confirmed"].fillna(False).astype(bool), "feature_number"].tolist()
        for place, table in tables.features.items()
    }
    return [_section(own, tables.domain, places(tables.layers), confirmed) for own in record.effects]


def _section(
    record: EffectRecord, domain: str, ordered: Sequence[str], confirmed: Mapping[str, Sequence[int]]
) -> EffectSection:
    best_first = sorted(record.layers.items(), key=lambda item: -item[1].difference)
    limits = _limits([effect for _, effect in best_first])
    return EffectSection(
        name=record.name,
        headline=headline(record, domain),
        best_layers=best_layers_sentence(record, ordered),
        warnings=[*stale_sentences(record, confirmed), *record.warnings],
        rows=[_row(place, effect, limits) for place, effect in best_first],
        features=record.describe(),
        tasks=_tasks(record.tasks),
        sentences=method_sentences(record, domain),
    )


def _row(place: str, effect: LayerEffect, limits: tuple[float, float]) -> EffectRow:
    return EffectRow(
        hookpoint=place,
        features=effect.features,
        domain=_measure(effect.domain_effect, effect.domain_effect_low, effect.domain_effect_high),
        general=_measure(effect.general_effect, effect.general_effect_low, effect.general_effect_high),
        difference=_measure(effect.difference, effect.difference_low, effect.difference_high),
        track=_track(effect, limits),
        track_text=_track_text(effect),
        random=_beyond(effect.random),
        matched=_beyond(effect.matched),
        matched_ratio=(_optional(effect.matched_domain_ratio), _optional(effect.matched_general_ratio)),
        verdict=effect.verdict,
        meaning=LAYER_VERDICT_MEANINGS[effect.verdict],
        shown=effect.verdict == "the domain loses more",
        by_class=_by_class(effect),
    )


def _measure(value: float, low: float, high: float, *more: str) -> Measure:
    shown, low_shown, high_shown = plain_numbers(value, low, high)
    return Measure(shown, [f"{low_shown} to {high_shown}", *more])


def _beyond(excess: Excess | None) -> Measure:
    if excess is None:
        return Measure("–", [])
    among = f"rank {excess.rank} of {excess.controls + 1}, p {probability_text(excess.holm_p)}"
    return _measure(excess.value, excess.low, excess.high, among)


def _by_class(effect: LayerEffect) -> list[tuple[str, str, str]]:
    rows = {
        "Loss on terms of the lexicon": (effect.domain_term_effect, effect.general_term_effect),
        "Loss right after a term": (effect.domain_after_term_effect, effect.general_after_term_effect),
        "Loss on all other tokens": (effect.domain_rest_effect, effect.general_rest_effect),
        "KL divergence": (effect.domain_kl, effect.general_kl),
        "KL divergence on terms of the lexicon": (effect.domain_term_kl, effect.general_term_kl),
        "KL divergence right after a term": (effect.domain_after_term_kl, effect.general_after_term_kl),
        "KL divergence on all other tokens": (effect.domain_rest_kl, effect.general_rest_kl),
        "Norm removed at a position": (effect.domain_norm, effect.general_norm),
        "Loss for each unit of norm": (effect.domain_effect_per_norm, effect.general_effect_per_norm),
    }
    return [(name, _optional(domain), _optional(general)) for name, (domain, general) in rows.items()]


def _optional(value: float | None) -> str:
    return "–" if value is None else plain_numbers(value)[0]


def _limits(effects: Sequence[LayerEffect]) -> tuple[float, float]:
    """Ends of the scale on which all differences and controls are drawn; 0 is between them."""
    values = [0.0]
    for effect in effects:
        values += [effect.difference, effect.difference_low, effect.difference_high]
        for excess in (effect.random, effect.matched):
            values += [] if excess is None else [excess.control_low, excess.control_high]
    return (min(values), max(values)) if min(values) < max(values) else (-1.0, 1.0)


def _track(effect: LayerEffect, limits: tuple[float, float]) -> Track:
    low, high = limits

    def at(value: float) -> float:
        return round(MARGIN_PERCENT + (100 - 2 * MARGIN_PERCENT) * (value - low) / (high - low), 2)

    def band(start: float, end: float) -> Band:
        return Band(at(start), round(at(end) - at(start), 2))

    def of_controls(excess: Excess | None) -> Band | None:
        return None if excess is None else band(excess.control_low, excess.control_high)

    return Track(
        zero=at(0),
        value=at(effect.difference),
        interval=band(effect.difference_low, effect.difference_high),
        random=of_controls(effect.random),
        matched=of_controls(effect.matched),
    )


def _track_text(effect: LayerEffect) -> str:
    parts = [f"difference {plain_numbers(effect.difference)[0]}"]
    for name, excess in (("random directions", effect.random), ("matched latents", effect.matched)):
        if excess is not None:
            parts.append(f"{name} {' to '.join(plain_numbers(excess.control_low, excess.control_high))}")
    return "; ".join(parts)


def _tasks(tasks: Mapping[str, Sequence[Mapping[str, TaskCell]]]) -> TaskTable | None:
    """The table of tasks; its columns are those of the first row."""
    rows = [(place, row) for place, own in tasks.items() for row in own]
    if not rows:
        return None
    names = list(rows[0][1])
    head = [(name.replace("_", " ").capitalize(), all(_is_number(row.get(name)) for _, row in rows)) for name in names]
    return TaskTable(head, [(place, [_cell(row.get(name)) for name in names]) for place, row in rows])


def _is_number(value: TaskCell) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: TaskCell) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain_numbers(value)[0] if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
