"""The effects of reported features as the table of features holds them: one entry for each text that they are of."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import pandas as pd
from pydantic import Field, TypeAdapter

from stratalens.effects.feature_effects import FeatureEffect
from stratalens.files.result_names import VALIDATION_NAME
from stratalens.hookpoint import Hookpoint

OWN_TEXT = ""
"""Name of the effects on the run's own confirmation documents; effects on other texts have names like validations."""
MAX_EFFECT_TEXTS = 64
"""A result has effects on at most so many texts."""
MAX_EFFECT_SIZE = 1e9
"""Larger numbers in absolute value are refused: no sum of losses and no norm comes near."""


class FeatureTextEffect(NamedTuple):
    """The effect of removing one feature on one text."""

    name: Annotated[str, Field(pattern=rf"^(?:{VALIDATION_NAME})?$")]
    """Of the text, empty for the run's own."""
    effect: FeatureEffect


FeatureEffects = Mapping[Hookpoint, Mapping[int, FeatureEffect]]
"""Hookpoint -> feature -> its effect on one text."""
_ENTRIES = TypeAdapter(Annotated[list[FeatureTextEffect], Field(max_length=MAX_EFFECT_TEXTS)])


def effect_entries(text: str) -> list[FeatureTextEffect]:
    """The entries of a cell of the column `effect_scores`, one for each text; none for a feature not ablated.

    Raises:
        ValueError: it holds something else.
    """
    entries = _ENTRIES.validate_json(text)
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError("two effects on one text")
    if not all(_fits(entry.effect) for entry in entries):
        raise ValueError("numbers of an effect that do not fit one another")
    return entries


def _fits(effect: FeatureEffect) -> bool:
    """Whether all numbers are finite, intervals have an order, and probabilities, norms and counts are some."""
    numbers = {name: value for name, value in effect._asdict().items() if isinstance(value, int | float)}
    if not all(math.isfinite(value) and abs(value) <= MAX_EFFECT_SIZE for value in numbers.values()):
        return False
    ordered = all(
        numbers[name] <= numbers[name.removesuffix("_low") + "_high"] for name in numbers if name.endswith("_low")
    )
    probable = all(0 <= numbers[name] <= 1 for name in numbers if name.endswith(("p_value", "q_value")))
    return ordered and probable and all(numbers[name] >= 0 for name in numbers if name.endswith(("_norm", "_fired")))


def effects_of(table: pd.DataFrame) -> dict[int, list[FeatureTextEffect]]:
    """Feature -> its effects, from the column of `with_effects`; empty for a table without it."""
    if "effect_scores" not in table:
        return {}
    return dict(zip(table["feature_number"].tolist(), map(effect_entries, table["effect_scores"]), strict=True))


def effects_on(name: str, effects: Mapping[Hookpoint, Mapping[int, Sequence[FeatureTextEffect]]]) -> FeatureEffects:
    """Hookpoint -> feature -> its effect on one text; only features that were ablated there."""
    return {
        hookpoint: {number: entry.effect for number, entries in own.items() for entry in entries if entry.name == name}
        for hookpoint, own in effects.items()
    }


def with_effects(
    top: Mapping[Hookpoint, pd.DataFrame], effects: Mapping[Hookpoint, Mapping[int, Sequence[FeatureTextEffect]]]
) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the columns `effect`, `causal` and, in JSON, `effect_scores`.

    Args:
        top: hookpoint -> its reported features.
        effects: hookpoint -> feature -> its effects; `effect` and `causal` say what those on the run's own text say,
            and are empty for features without any.
    """
    return {hookpoint: _with_effects(table, effects.get(hookpoint, {})) for hookpoint, table in top.items()}


def add_effects(
    top: Mapping[Hookpoint, pd.DataFrame], name: str, effects: FeatureEffects
) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the effects on one text, in the place of all earlier ones of its name.

    Args:
        top: hookpoint -> its reported features.
        name: of the text, empty for the run's own.
        effects: hookpoint -> feature that was ablated -> its effect.
    """
    merged = {}
    for hookpoint, table in top.items():
        known, new = effects_of(table), effects.get(hookpoint, {})
        merged[hookpoint] = {
            number: [
                *(entry for entry in known.get(number, ()) if entry.name != name),
                *([FeatureTextEffect(name, new[number])] if number in new else []),
            ]
            for number in table["feature_number"].tolist()
        }
    return with_effects(top, merged)


def keep_effects(
    top: Mapping[Hookpoint, pd.DataFrame], before: Mapping[Hookpoint, pd.DataFrame]
) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the effects, and attributions, that they had in other tables.

    They stay as they are where the other tables have no columns of effects.
    """
    if not any("effect_scores" in table for table in before.values()):
        return dict(top)
    kept = with_effects(top, {hookpoint: effects_of(table) for hookpoint, table in before.items()})
    return {hookpoint: _keep_attribution(table, before[hookpoint]) for hookpoint, table in kept.items()}


def _keep_attribution(table: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    if "attribution" not in before:
        return table
    known = before.set_index("feature_number")["attribution"]
    return table.assign(attribution=known.reindex(table["feature_number"]).to_numpy())


def _with_effects(table: pd.DataFrame, effects: Mapping[int, Sequence[FeatureTextEffect]]) -> pd.DataFrame:
    own = [list(effects.get(number, ())) for number in table["feature_number"].tolist()]
    verdicts = [next((e.effect.verdict for e in entries if e.name == OWN_TEXT), None) for entries in own]
    causal = [None if verdict is None else verdict == "moves the domain" for verdict in verdicts]
    cells = [json.dumps([{"name": e.name, "effect": e.effect._asdict()} for e in entries]) for entries in own]
    return table.assign(
        effect=pd.Series(verdicts, index=table.index, dtype="str"),
        causal=pd.array(causal, dtype="boolean"),
        effect_scores=pd.Series(cells, index=table.index, dtype="str"),
    )
