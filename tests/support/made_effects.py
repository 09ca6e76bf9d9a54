"""Effects that were never measured, for tests of what is written and shown of effects: numbers that fit one another."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from stratalens.effects.effect_scores import OWN_TEXT
from stratalens.effects.feature_effects import EFFECT_VERDICTS, FeatureEffect
from stratalens.effects.layer_effects import Excess, LayerEffect
from stratalens.files.output_dir import working_in
from stratalens.hookpoint import Hookpoint
from stratalens.optional_parts import OptionalParts
from stratalens.progress import NoProgress
from stratalens.report import load_result
from stratalens.report.publish_effects import EffectFacts, MeasuredEffects, publish_effects
from stratalens.report.saved import Result


class MadeTaskEffect(NamedTuple):
    """A row of tasks, of whatever columns."""

    kind: str
    solved: int
    margin_change: float
    margin_low: float | None
    reported: bool


def excess(value: float, controls: int, spread: float) -> Excess:
    beyond = abs(value) > 2 * spread
    return Excess(
        value, value - spread, value + spread, 0.001 if beyond else 0.31, 0.002 if beyond else 0.62,
        1 if beyond else 7, controls, None if controls < 199 else 0.005, -spread, spread,
    )  # fmt: skip


def layer_effect(difference: float, features: int = 3, *, lexicon: bool = True) -> LayerEffect:
    """Effects of a layer that costs the domain so much more than general text."""
    spread, general = 0.0021, 0.25 * difference
    domain = general + difference
    shown = difference > 2 * spread
    term = (1.9 * domain, 1.1 * domain) if lexicon else (None, None)
    return LayerEffect(
        features=features, domain_documents=12, general_documents=12,
        domain_effect=domain, domain_effect_low=domain - spread, domain_effect_high=domain + spread,
        general_effect=general, general_effect_low=general - spread, general_effect_high=general + spread,
        difference=difference, difference_low=difference - spread, difference_high=difference + spread,
        domain_term_effect=term[0], domain_after_term_effect=term[1], domain_rest_effect=0.8 * domain,
        general_term_effect=term[1], general_after_term_effect=term[0], general_rest_effect=0.9 * general,
        domain_kl=0.004, general_kl=0.002, domain_norm=1.84, general_norm=0.62,
        domain_effect_per_norm=domain / 1.84, general_effect_per_norm=general / 0.62,
        random=excess(difference - 0.0007, 20, spread), matched=excess(0.8 * difference, 20, spread),
        matched_domain_ratio=0.97, matched_general_ratio=1.08,
        verdict="the domain loses more" if shown else "no difference shown",
        domain_term_kl=0.009 if lexicon else None, domain_after_term_kl=0.006 if lexicon else None,
        domain_rest_kl=0.003, general_term_kl=0.004 if lexicon else None,
        general_after_term_kl=0.003 if lexicon else None, general_rest_kl=0.001,
    )  # fmt: skip


def feature_effect(verdict: str, size: float, attribution: float | None = None) -> FeatureEffect:
    general = {"moves the domain": 0.1, "moves everything": 0.9}.get(verdict, 0.3) * size
    low, difference = 0.0006, size - general
    return FeatureEffect(
        verdict=verdict,  # pyright: ignore[reportArgumentType]
        domain_effect=size, domain_effect_low=size - low, domain_effect_high=size + low,
        general_effect=general, general_effect_low=general - low, general_effect_high=general + low,
        difference=difference, difference_low=difference - low, difference_high=difference + low,
        excess=0.9 * size, excess_low=0.9 * size - low, excess_high=0.9 * size + low,
        difference_excess=0.8 * difference, difference_excess_low=0.8 * difference - low,
        difference_excess_high=0.8 * difference + low,
        p_value=0.0004, q_value=0.0031, effect_p_value=0.0003, effect_q_value=0.0024,
        domain_kl=0.001, general_kl=0.0002, domain_norm=0.4, general_norm=0.1,
        domain_documents_fired=11, general_documents_fired=3,
        domain_attribution=0.8 * size if attribution is None else attribution, general_attribution=0.7 * general,
    )  # fmt: skip


def attributions(latents: pd.DataFrame) -> pd.DataFrame:
    numbers = latents.loc[latents["live"], "feature_number"].to_numpy()
    rng = np.random.default_rng(len(numbers))
    domain, general = rng.normal(0.0003, 0.001, len(numbers)), rng.normal(0, 0.0004, len(numbers))
    values = {"domain_attribution": domain, "general_attribution": general, "attribution_difference": domain - general}
    errors = {f"{name}_se": rng.uniform(1e-5, 1e-4, len(numbers)) for name in values}
    return pd.DataFrame({"feature_number": numbers, **values, **errors})


def made_effects(
    result: Result, differences: Sequence[float] = (0.0132, 0.0011), *, name: str = OWN_TEXT, ablated: int = 4
) -> MeasuredEffects:
    """Effects of every layer of a result, which have these differences in turn, and of its best features."""
    places = list(result.findings.top)
    sizes = dict(zip(places, np.resize(differences, len(places)).tolist(), strict=True))
    numbers = {place: own[:ablated] for place, own in result.findings.features.items()}
    features = {
        place: {
            number: feature_effect(EFFECT_VERDICTS[at % 4], (0.0004 if at % 4 == 2 else 0.0061) / (1 + at // 4))
            for at, number in enumerate(own)
        }
        for place, own in numbers.items()
    }
    facts = EffectFacts(
        name=name, digest="0f" * 8, text_digest="ab" * 8, domain_documents=12, general_documents=12,
        control_documents=6, tokens=40_123,
        random_draws=20, matched_sets=20, noise_floor=0.0000012, dtype="float32", device="cpu", seed=42,
        removed=_confirmed(result), dense={places[0]: [1]}, notes=["a note"], warnings=["a warning"],
        settings={"domain_data": ["a.jsonl"]} if name else {},
    )  # fmt: skip
    layers = {place: layer_effect(size, len(facts.removed[place])) for place, size in sizes.items()}
    tables = {place: attributions(table) for place, table in result.findings.latents.items()}
    return MeasuredEffects(facts, layers, features, tables)


def _confirmed(result: Result) -> Mapping[Hookpoint, list[int]]:
    top = result.findings.top
    return {
        place: table.loc[table["confirmed"].fillna(False).astype(bool), "feature_number"].tolist()
        for place, table in top.items()
    }


def publish_made(directory, measured: MeasuredEffects | None = None) -> Result:
    """Write made-up effects into a result, as the command does with measured ones."""
    with working_in(directory) as work:
        result = load_result(directory)
        return publish_effects(
            result, measured or made_effects(result), work.staging, OptionalParts(NoProgress(), required=True)
        )
