"""What removing features did, in plain words: for the page, the card of a feature, `show` and the terminal."""

import math
from collections.abc import Mapping, Sequence

from stratalens.effects.effect_scores import FeatureTextEffect
from stratalens.effects.feature_effects import EffectVerdict, FeatureEffect
from stratalens.effects.layer_effects import Excess, LayerVerdict
from stratalens.errors import counted
from stratalens.hookpoint import Hookpoint
from stratalens.report.effect_record import EffectRecord

VERDICT_MEANINGS: Mapping[EffectVerdict, str] = {
    "moves the domain": "without it the model predicts the domain's text worse, by more than with controls, and "
    "general text by less than half as much",
    "moves everything": "without it the model predicts general text worse as well, by at least half as much",
    "no measurable effect": "without it the model predicts the domain's text as before, to 0.001 nats a token",
    "undecided": "neither that it matters to the domain nor that it does not is shown",
}
LAYER_VERDICT_MEANINGS: Mapping[LayerVerdict, str] = {
    "the domain loses more": "without its features the domain loses more than general text, beyond what controls lose",
    "no difference shown": "that the domain loses more than general text, beyond the controls, is not shown",
    "controls do not match": "the matched latents do not remove the same norm on both sides, so nothing is concluded",
}
NOT_REMOVED = (
    "Effect: not removed by itself yet; stratalens effect RESULT_DIR removes the best features of each layer, "
    "and --ablate N says how many"
)
PROVES = (
    "A loss without a feature shows that the model, as it is here, uses that direction; it does not show that nothing "
    "else does the same, and no loss does not show that the feature is idle, because later layers can stand in for it."
)
MAX_EXTRA_DIGITS = 2
"""Digits that a number may have more, so that a limit of an interval that is not 0 does not look like 0."""


def plain_numbers(*values: float) -> list[str]:
    """Numbers with as many decimals as the largest of them needs for two significant digits.

    They get up to two decimals more where one that is not 0 would read as 0.
    """
    largest = max(map(abs, values), default=0.0)
    if largest == 0:
        return ["0"] * len(values)
    decimals = max(0, 1 - math.floor(math.log10(largest)))
    tried = [[f"{value:.{decimals + more}f}" for value in values] for more in range(MAX_EXTRA_DIGITS + 1)]
    shown = next((texts for texts in tried if not _hides(texts, values)), tried[-1])
    return [text.removeprefix("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}") for text in shown]


def _hides(texts: Sequence[str], values: Sequence[float]) -> bool:
    """Whether a number that is not 0 reads as 0."""
    return any(float(text) == 0 and value != 0 for text, value in zip(texts, values, strict=True))


def with_interval(value: float, low: float, high: float, unit: str = "") -> str:
    """A number with its interval, such as `0.012 nats a token (0.006 to 0.018)`."""
    shown, low_shown, high_shown = plain_numbers(value, low, high)
    return f"{shown}{f' {unit}' if unit else ''} ({low_shown} to {high_shown})"


def in_nats(value: float, low: float, high: float) -> str:
    """A change of the loss with its interval and its unit."""
    return with_interval(value, low, high, "nats a token")


def probability_text(value: float) -> str:
    """A p- or q-value to two significant digits."""
    return f"{value:.2g}"


def effect_lines(entries: Sequence[FeatureTextEffect], records: Sequence[EffectRecord], domain: str) -> list[str]:
    """What removing a feature does: the verdict on the run's own text first, then its numbers; a line for others.

    Args:
        entries: effects of the feature.
        records: of all texts on which effects of the result were measured.
        domain: name of the domain.
    """
    known = {entry.name: entry.effect for entry in entries}
    own, others = [], []
    for record in records:
        effect = known.get(record.name)
        if not record.is_own_text:
            others.append(_other_line(effect, record, domain))
        elif effect is None:
            own.append(NOT_REMOVED)
        else:
            own += _own_lines(effect, record, domain)
    return [*own, *others]


def _losses(effect: FeatureEffect, domain: str) -> str:
    own = in_nats(effect.domain_effect, effect.domain_effect_low, effect.domain_effect_high)
    general = in_nats(effect.general_effect, effect.general_effect_low, effect.general_effect_high)
    return f"by {own} on {domain} text, and by {general} on general text"


def _other_line(effect: FeatureEffect | None, record: EffectRecord, domain: str) -> str:
    if effect is None:
        return f"Effect on {record.name}: not removed by itself there"
    return f"Effect on {record.name}: {effect.verdict}; the loss changes {_losses(effect, domain)}"


def _own_lines(effect: FeatureEffect, record: EffectRecord, domain: str) -> list[str]:
    excess = in_nats(effect.excess, effect.excess_low, effect.excess_high)
    fired = (
        f"{effect.domain_documents_fired:,} of {record.domain_documents:,} {domain} and "
        f"{effect.general_documents_fired:,} of {record.general_documents:,} general documents"
    )
    predicted = plain_numbers(effect.domain_attribution, effect.general_attribution)
    return [
        f"Effect: {effect.verdict}: {VERDICT_MEANINGS[effect.verdict]} (q {probability_text(effect.q_value)})",
        f"Without it the loss changes {_losses(effect, domain)}",
        f"Beyond random directions of the same norm: {excess} on {domain} text",
        f"It fires in {fired}; attribution predicts {predicted[0]} on {domain} and {predicted[1]} on general text",
    ]


def headline(record: EffectRecord, domain: str) -> str:
    """What removing the features of the best layer by effect does, or that of no layer it is shown to matter."""
    if not record.layers:
        return "No layer has confirmed features, so nothing was removed together."
    best = best_by_effect(record)
    if best is None:
        tried = counted(len(record.layers), "layer")
        return (
            f"Of {tried}, none is shown to matter more to {domain} text than to general text beyond its controls: "
            f"that its features tell the two apart does not mean that the model needs them.{_unjudged(record)}"
        )
    effect = record.layer_effects[best]
    removed = "its one confirmed feature" if effect.features == 1 else f"its {effect.features} confirmed features"
    own = in_nats(effect.domain_effect, effect.domain_effect_low, effect.domain_effect_high)
    general = in_nats(effect.general_effect, effect.general_effect_low, effect.general_effect_high)
    beyond = "" if effect.random is None else f" {_beyond(effect.random)}"
    return (
        f"The model needs layer {best} most for {domain} text: without {removed} it loses {own} there, and {general} "
        f"on general text.{beyond}{_unjudged(record)}"
    )


def _unjudged(record: EffectRecord) -> str:
    """Which layers have no verdict."""
    places = [place for place, effect in record.layer_effects.items() if effect.verdict == "controls do not match"]
    if not places:
        return ""
    layers = f"layer{'s' if len(places) > 1 else ''} {' '.join(map(str, sorted(places)))}"
    return f" There is no verdict on {layers}: no other latents remove as much norm on both sides."


def _beyond(excess: Excess) -> str:
    value = in_nats(excess.value, excess.low, excess.high)
    return f"The difference is {value} more than with random directions of the same norm."


def best_by_effect(record: EffectRecord) -> Hookpoint | None:
    """The layer that the domain needs most: the largest difference of those where the domain is shown to lose more."""
    shown = {place: own for place, own in record.layer_effects.items() if own.verdict == "the domain loses more"}
    return max(shown, key=lambda place: shown[place].difference) if shown else None


def best_layers_sentence(record: EffectRecord, ordered: Sequence[str]) -> str:
    """Whether the best layer by effect is the best one by specialization; empty where there is no best by effect.

    Args:
        record: of the effects on one text.
        ordered: names of the hookpoints, best first by specialization.
    """
    best = best_by_effect(record)
    if best is None or not ordered:
        return ""
    if str(best) == ordered[0]:
        return f"Layer {best} is the best by effect and by specialization."
    first = record.layers.get(ordered[0])
    if first is None:
        there = "of which no feature is confirmed"
    else:
        there = f"whose difference is {in_nats(first.difference, first.difference_low, first.difference_high)}"
    return (
        f"The best layer by effect is {best}, that by specialization is {ordered[0]}, {there}: features need not tell "
        "the domain apart best where the model needs them most."
    )


def stale_sentences(record: EffectRecord, confirmed: Mapping[str, Sequence[int]]) -> list[str]:
    """A sentence where the confirmed features of layers are no longer those that were removed.

    Args:
        record: of the effects on one text.
        confirmed: hookpoint -> features that are confirmed now.
    """
    places = [place for place, removed in record.removed.items() if set(removed) != set(confirmed.get(place, ()))]
    if not places:
        return []
    word = "layer" if len(places) == 1 else "layers"
    return [
        f"The confirmed features of {word} {', '.join(places)} have changed since they were removed; "
        "run stratalens effect RESULT_DIR for the present ones"
    ]


def method_sentences(record: EffectRecord, domain: str) -> list[str]:
    """How the effects on a text were measured, what was done about dense latents, and other notes."""
    floor = plain_numbers(record.noise_floor)[0]
    how = "gradient × activation" if not record.ig_steps else f"integrated gradients in {record.ig_steps} steps"
    sentences = [
        f"Measured on {record.domain_documents:,} {domain} and {record.general_documents:,} general documents; "
        f"{record.random_draws} draws of random directions and {record.matched_sets} sets of matched latents on "
        f"{record.control_documents:,} a side. The model ran in {record.dtype} on {record.device}.",
        f"Noise floor: in batches of other sizes the plain model's loss differs by {floor} nats a token.",
    ]
    if record.rank_correlation is not None:
        sentences.append(
            f"Attribution by {how} orders the features that were removed one by one with rank correlation "
            f"{record.rank_correlation:.2f}."
        )
    if record.dense:
        told = ", ".join(f"{place}/{number}" for place, own in record.dense.items() for number in own)
        sentences.append(f"Dense latents were set to their mean on general text instead of being removed: {told}.")
    return [*sentences, *record.notes]


def effects_line(record: EffectRecord, ordered: Sequence[str], domain: str) -> str:
    """The effects on a text in one line, for the terminal."""
    parts = [headline(record, domain), best_layers_sentence(record, ordered), record.describe()]
    return " ".join(filter(None, parts))
