"""What the model loses without a layer's confirmed features, with its controls: the numbers and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stratalens.effects.beside_controls import all_sides, beyond_controls, control_sides
from stratalens.effects.changes import TOKEN_CLASSES, Change, EffectDocuments, LayerChanges
from stratalens.effects.document_bootstrap import bootstrap_differences
from stratalens.effects.document_means import Estimate, difference, mean
from stratalens.hookpoint import Hookpoint

MAX_P = 0.05
"""An excess over controls is shown if its p-value, corrected over the layers, is below this."""
MIN_MATCHED_RATIO, MAX_MATCHED_RATIO = 0.8, 1.25
"""Controls match if they remove this much of the norm that the own features remove, on each side."""
MIN_RANKED_CONTROLS = 199
"""With so many controls, their ranks alone give p-values down to 0.005."""

LayerVerdict = Literal["the domain loses more", "no difference shown", "controls do not match"]


class Excess(NamedTuple):
    """How much more an ablation costs the domain than general text, beyond the same of its controls.

    All on the documents on which controls are measured, in nats a token.
    """

    value: float
    """Own (domain - general) less the mean of the controls' (domain - general)."""
    low: float
    """95% interval, a bootstrap over documents within each side (`bootstrap_differences`)."""
    high: float
    p_value: float
    """One-sided, of the same bootstrap."""
    holm_p: float
    """Holm's over the layers."""
    rank: int
    """1 + how many controls have a difference at least as large as the own one."""
    controls: int
    """How many there are."""
    rank_p_value: float | None
    """rank / (controls + 1), one-sided (Davison & Hinkley 1997, section 4.2); None of fewer than 199 controls."""
    control_low: float
    """Smallest difference of a control."""
    control_high: float
    """Largest."""


def excess_columns(control: str, found: Excess | None) -> dict[str, float | int | None]:
    """Column -> what one kind of control says, in the order of tables; such as `random_excess`, `random_low`.

    Args:
        control: `random` or `matched`.
        found: None where there is nothing to say.
    """
    names = ("excess", *Excess._fields[1:])
    return {f"{control}_{name}": value for name, value in zip(names, found or (None,) * len(names), strict=True)}


class LayerEffect(NamedTuple):
    """The effect of removing the confirmed features of a hookpoint. Losses in nats a token, means over documents."""

    features: int
    """Confirmed features that are removed."""
    domain_documents: int
    general_documents: int
    domain_effect: float
    """Change of the loss on domain documents, with its 95% interval."""
    domain_effect_low: float
    domain_effect_high: float
    general_effect: float
    general_effect_low: float
    general_effect_high: float
    difference: float
    """Domain less general."""
    difference_low: float
    difference_high: float
    domain_term_effect: float | None
    """On tokens of the lexicon's terms, over all documents that have any; None where none has, as without a lexicon."""
    domain_after_term_effect: float | None
    domain_rest_effect: float | None
    general_term_effect: float | None
    general_after_term_effect: float | None
    general_rest_effect: float | None
    domain_kl: float
    general_kl: float
    domain_norm: float
    """Mean norm that is removed at a position of domain documents."""
    general_norm: float
    domain_effect_per_norm: float | None
    """Change of the loss for each unit of norm that is removed; None where nothing is."""
    general_effect_per_norm: float | None
    random: Excess | None
    """Beyond random directions of the same norm."""
    matched: Excess | None
    """Beyond other live latents of about the same norm."""
    matched_domain_ratio: float | None
    """Norm that the matched sets remove on domain documents, mean of all sets, over the own one; None without sets,
    and where the own features remove nothing."""
    matched_general_ratio: float | None
    verdict: LayerVerdict
    domain_term_kl: float | None = None
    """As `domain_kl`, on the tokens of each class."""
    domain_after_term_kl: float | None = None
    domain_rest_kl: float | None = None
    general_term_kl: float | None = None
    general_after_term_kl: float | None = None
    general_rest_kl: float | None = None


def layer_effects(
    documents: EffectDocuments, layers: Mapping[Hookpoint, LayerChanges], seed: int
) -> dict[Hookpoint, LayerEffect]:
    """The effect of removing each layer's features, with its controls and its verdict.

    Effects are means over documents of the change of the loss per token. Their intervals, and that of their difference,
    are those of `document_means.difference`. What goes beyond controls is measured on the documents that these have,
    and corrected over the layers for each kind of control by Holm's method (1979).

    `the domain loses more` if the interval of the difference lies above 0, and the difference goes beyond that of
    random directions and beyond that of the matched sets, if there are any, each above 0 with a corrected p below 0.05.
    `controls do not match` where the matched sets remove less than 0.8 or more than 1.25 times the norm on a side.

    Args:
        documents: what the changes are of; at least one of each side, also among those of the controls.
        layers: hookpoint -> its changes.
        seed: of the bootstrap.
    """
    random = _excesses(documents, {key: (layer.own, layer.random) for key, layer in layers.items()}, seed)
    matched = _excesses(documents, {key: (layer.own, layer.matched) for key, layer in layers.items()}, seed)
    return {key: _effect(documents, layer, random.get(key), matched.get(key)) for key, layer in layers.items()}


def best_layer(effects: Mapping[Hookpoint, LayerEffect]) -> Hookpoint | None:
    """The layer with the largest difference, of those where the domain loses more; None if it does in none."""
    shown = [key for key, effect in effects.items() if effect.verdict == "the domain loses more"]
    return max(sorted(shown), key=lambda key: effects[key].difference, default=None)


def holm(p_values: Float[np.ndarray, "layer"]) -> Float[np.ndarray, "layer"]:
    """Holm's adjusted p-values (1979): the probability of any false discovery is at most the level."""
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return adjusted


def _excesses(
    documents: EffectDocuments, changes: Mapping[Hookpoint, tuple[Change, Sequence[Change]]], seed: int
) -> dict[Hookpoint, Excess]:
    """What goes beyond one kind of control; only of layers that have some."""
    changes = {key: (own, controls) for key, (own, controls) in changes.items() if controls}
    if not changes:
        return {}
    domain, general = control_sides(documents)
    columns = [beyond_controls(documents, own, controls) for own, controls in changes.values()]
    beyond = np.stack(columns, axis=1)
    estimates = bootstrap_differences(beyond[domain], beyond[general], seed)
    corrected = holm(np.array([estimate.p_value for estimate in estimates])).tolist()
    return {
        key: _excess(documents, own, controls, estimate, holm_p)
        for (key, (own, controls)), estimate, holm_p in zip(changes.items(), estimates, corrected, strict=True)
    }


def _excess(
    documents: EffectDocuments, own: Change, controls: Sequence[Change], estimate: Estimate, holm_p: float
) -> Excess:
    sides = control_sides(documents)
    own_difference = sides.difference(own.loss_per_token(documents))
    others = [sides.difference(control.loss_per_token(documents)) for control in controls]
    rank, number = 1 + sum(other >= own_difference for other in others), len(others)
    rank_p = rank / (number + 1) if number >= MIN_RANKED_CONTROLS else None
    return Excess(*estimate, holm_p, rank, number, rank_p, min(others), max(others))


class _Side(NamedTuple):
    """What an ablation does to the documents of one side."""

    effect: Estimate
    classes: list[float | None]
    """Effect on the tokens of each class."""
    kl: float
    kl_classes: list[float | None]
    norm: float

    def fields(self, side: str) -> dict[str, Any]:
        """Its numbers by their names in `LayerEffect`."""
        named: dict[str, float | None] = {
            "effect": self.effect.value,
            "effect_low": self.effect.low,
            "effect_high": self.effect.high,
        }
        named |= {"kl": self.kl, "norm": self.norm}
        named["effect_per_norm"] = self.effect.value / self.norm if self.norm > 0 else None
        for name, loss, kl in zip(TOKEN_CLASSES, self.classes, self.kl_classes, strict=True):
            named |= {f"{name}_effect": loss, f"{name}_kl": kl}
        return {f"{side}_{name}": value for name, value in named.items()}


def _side(documents: EffectDocuments, own: Change, rows: Int[np.ndarray, "row"]) -> _Side:
    total, tokens = documents.total[rows], documents.tokens[rows]
    kl, norm = float((own.kl[rows].sum(1) / total).mean()), float((own.norm[rows] / total).mean())
    losses, divergences = (_by_class(sums[rows], tokens) for sums in (own.loss, own.kl))
    return _Side(mean(own.loss_per_token(documents)[rows]), losses, kl, divergences, norm)


def _by_class(
    sums: Float[np.ndarray, "document classes"], tokens: Int[np.ndarray, "document classes"]
) -> list[float | None]:
    """Means of the tokens of each class over the documents that have any; None where none has."""
    having = tokens > 0
    means = sums / np.where(having, tokens, 1)
    return [
        float(means[having[:, number], number].mean()) if having[:, number].any() else None
        for number in range(len(TOKEN_CLASSES))
    ]


def _effect(
    documents: EffectDocuments, layer: LayerChanges, random: Excess | None, matched: Excess | None
) -> LayerEffect:
    rows = all_sides(documents)
    domain, general = (_side(documents, layer.own, own) for own in rows)
    losses = layer.own.loss_per_token(documents)
    more = difference(losses[rows.domain], losses[rows.general])
    norms = _matched_norms(documents, layer)
    ratios = [norm.ratio for norm in norms] or [None, None]
    return LayerEffect(
        features=len(layer.features),
        domain_documents=len(rows.domain),
        general_documents=len(rows.general),
        difference=more.value,
        difference_low=more.low,
        difference_high=more.high,
        random=random,
        matched=matched,
        matched_domain_ratio=ratios[0],
        matched_general_ratio=ratios[1],
        verdict=_verdict(more, random, matched, norms),
        **domain.fields("domain"),
        **general.fields("general"),
    )


class _MatchedNorm(NamedTuple):
    """Norms per position, on the documents of one side that controls are measured on."""

    own: float
    sets: float
    """Mean of all matched sets."""

    @property
    def ratio(self) -> float | None:
        return self.sets / self.own if self.own > 0 else None

    @property
    def matches(self) -> bool:
        return MIN_MATCHED_RATIO * self.own <= self.sets <= MAX_MATCHED_RATIO * self.own


def _matched_norms(documents: EffectDocuments, layer: LayerChanges) -> list[_MatchedNorm]:
    """Of domain and of general documents; empty without sets."""
    if not layer.matched:
        return []
    own = layer.own.norm / documents.total
    sets = np.mean([control.norm for control in layer.matched], axis=0) / documents.total
    return [_MatchedNorm(float(own[rows].mean()), float(sets[rows].mean())) for rows in control_sides(documents)]


def _verdict(
    more: Estimate, random: Excess | None, matched: Excess | None, norms: Sequence[_MatchedNorm]
) -> LayerVerdict:
    if not all(norm.matches for norm in norms):
        return "controls do not match"
    beyond = random is not None and _shown(random) and (matched is None or _shown(matched))
    return "the domain loses more" if more.above_zero and beyond else "no difference shown"


def _shown(excess: Excess) -> bool:
    return excess.value > 0 and excess.holm_p < MAX_P
