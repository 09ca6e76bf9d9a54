"""What the model loses on tasks without a layer's confirmed features, with its controls."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stratalens.effects.document_means import Estimate, difference, mean
from stratalens.effects.excess import corrected, excess
from stratalens.effects.layer_effects import Excess, excess_columns
from stratalens.effects.task_items import ALL_KINDS, MIN_SOLVED_ITEMS, TaskItem, kinds_of
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint

Margin = Float[np.ndarray, "item"]
"""Summed log-probability of the correct continuation less that of the wrong one, in nats."""


class AblatedMargins(NamedTuple):
    """Margins of all items while latents of one hookpoint are removed."""

    own: Margin
    """While its confirmed features are removed together."""
    random: Float[np.ndarray, "draw item"]
    """Of random directions with the norm that the features remove at each token; nan where not measured."""
    matched: Float[np.ndarray, "draw item"]
    """Of sets of other live latents that remove about the same norm; nan where not measured."""


class TaskEffect(NamedTuple):
    """The effect of removing a layer's confirmed features on the items of one kind, or of all kinds.

    Of the items that the model solves before: those with a margin above 0. Effects are what the margin loses, in nats
    an item, means over items: above 0 where the model gets worse. All of a side are None if it has fewer than
    `MIN_SOLVED_ITEMS` such items. Choosing solved items flatters the margin before, so that almost any change lowers it
    a little: this falls on both sides and on controls alike, which is why only differences say something.
    """

    domain_items: int
    """Solved before."""
    general_items: int
    domain_unsolved: int
    """Left out, because they are not solved before."""
    general_unsolved: int
    domain_still_solved: int | None = None
    """Of `domain_items`, those that are solved after, too."""
    general_still_solved: int | None = None
    domain_margin: float | None = None
    """Mean margin before."""
    general_margin: float | None = None
    domain_effect: float | None = None
    """Margin before less after, with its 95% interval."""
    domain_effect_low: float | None = None
    domain_effect_high: float | None = None
    general_effect: float | None = None
    general_effect_low: float | None = None
    general_effect_high: float | None = None
    difference: float | None = None
    """Domain less general."""
    difference_low: float | None = None
    difference_high: float | None = None
    random: Excess | None = None
    """Beyond random directions of the same norm, on items on which these are measured; None of too few."""
    matched: Excess | None = None
    """Beyond other live latents of about the same norm."""

    def flat(self) -> dict[str, float | int | None]:
        """Column -> its value; those of `random` and `matched` begin with their name."""
        own: dict[str, float | int | None] = {
            name: value for name, value in self._asdict().items() if name not in ("random", "matched")
        }
        return own | excess_columns("random", self.random) | excess_columns("matched", self.matched)


def task_effects(
    items: Sequence[TaskItem], plain: Margin, ablated: Mapping[Hookpoint, AblatedMargins], seed: int
) -> dict[Hookpoint, dict[str, TaskEffect]]:
    """The effect of removing each layer's confirmed features on the items of each kind, and of all kinds together.

    An item is the unit of all intervals, as a document is of the effects on the loss, and their statistics are the
    same: `document_means` for effects and their difference, `document_bootstrap` for what goes beyond the controls,
    with Holm's correction over the layers within each kind. A control is compared on the items on which all draws are
    measured, at least `MIN_SOLVED_ITEMS` of each side.

    Args:
        items: the items, in any order: the result does not depend on it.
        plain: margins before anything is removed.
        ablated: hookpoint -> its margins.
        seed: of the bootstrap.

    Returns:
        Hookpoint -> kind -> its effect; the kinds are those of the items of the domain, and `ALL_KINDS`.
    """
    order = np.argsort(np.array([hash64("task item", item.id) for item in items], dtype=np.uint64), kind="stable")
    kinds = {ALL_KINDS: np.ones(len(items), dtype=bool)}
    kinds |= {kind: np.array([item.kind == kind for item in items]) for kind in kinds_of(items)}
    domain, solved = np.array([item.domain for item in items]), plain > 0
    effects: dict[Hookpoint, dict[str, TaskEffect]] = {hookpoint: {} for hookpoint in ablated}
    for kind, of_kind in kinds.items():
        counted = _counted(of_kind, domain, solved)
        rows = _Rows(*(order[(of_kind & solved & side)[order]] for side in (domain, ~domain)))
        beyond = {name: _beyond(rows, plain, ablated, name, seed) for name in ("random", "matched")}
        for hookpoint, margins in ablated.items():
            found = {name: of_layer[hookpoint] for name, of_layer in beyond.items()}
            values = _estimates(rows, plain, margins.own)
            effects[hookpoint][kind] = counted._replace(**values, **found)
    return effects


def _counted(
    of_kind: Bool[np.ndarray, "item"], domain: Bool[np.ndarray, "item"], solved: Bool[np.ndarray, "item"]
) -> TaskEffect:
    """The numbers of items of a kind alone."""
    return TaskEffect(
        domain_items=int((of_kind & domain & solved).sum()),
        general_items=int((of_kind & ~domain & solved).sum()),
        domain_unsolved=int((of_kind & domain & ~solved).sum()),
        general_unsolved=int((of_kind & ~domain & ~solved).sum()),
    )


class _Rows(NamedTuple):
    """Items that are solved before, of each side."""

    domain: Int[np.ndarray, "domain_item"]
    general: Int[np.ndarray, "general_item"]

    def only(self, chosen: Bool[np.ndarray, "item"]) -> "_Rows":
        return _Rows(self.domain[chosen[self.domain]], self.general[chosen[self.general]])

    @property
    def enough(self) -> bool:
        return min(map(len, self)) >= MIN_SOLVED_ITEMS


def _estimates(rows: _Rows, plain: Margin, own: Margin) -> dict[str, float | int | None]:
    """Fields of `TaskEffect` but for counts and controls; those of a side with enough items."""
    lost, values = plain - own, dict[str, float | int | None]()
    for side, items in zip(rows._fields, rows, strict=True):
        if len(items) < MIN_SOLVED_ITEMS:
            continue
        values[f"{side}_still_solved"] = int((own[items] > 0).sum())
        values[f"{side}_margin"] = float(plain[items].mean())
        values |= _named(f"{side}_effect", mean(lost[items]))
    if rows.enough:
        values |= _named("difference", difference(lost[rows.domain], lost[rows.general]))
    return values


def _named(name: str, estimate: Estimate) -> dict[str, float | int | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _beyond(
    rows: _Rows, plain: Margin, ablated: Mapping[Hookpoint, AblatedMargins], name: str, seed: int
) -> dict[Hookpoint, Excess | None]:
    """What goes beyond one kind of control, of each layer."""
    found = dict[Hookpoint, Excess | None]()
    for hookpoint, margins in ablated.items():
        controls: Float[np.ndarray, "draw item"] = getattr(margins, name)
        measured = rows.only(np.asarray(np.isfinite(controls).all(axis=0)))
        lost, others = plain - margins.own, plain - controls
        if len(controls) and measured.enough:
            domain, general = measured
            found[hookpoint] = excess(lost[domain], lost[general], others[:, domain], others[:, general], seed)
        else:
            found[hookpoint] = None
    return corrected(found)
