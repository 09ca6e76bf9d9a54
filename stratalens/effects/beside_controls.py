"""An ablation beside its controls, on the documents on which both are measured."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stratalens.effects.changes import Change, EffectDocuments

ROUNDING = 1e-12
"""Changes that agree to this share of themselves are equal: the computed mean of equal numbers may differ from them."""


class Sides(NamedTuple):
    """Documents of each side."""

    domain: Int[np.ndarray, "domain_document"]
    general: Int[np.ndarray, "general_document"]

    def difference(self, values: Float[np.ndarray, "document"]) -> float:
        """Mean of the domain documents less that of the general ones."""
        return float(values[self.domain].mean() - values[self.general].mean())


def all_sides(documents: EffectDocuments) -> Sides:
    """All documents of each side, by their hashes: whatever the order in which they come."""
    order = np.argsort(documents.hashes, kind="stable")
    return Sides(order[documents.domain[order]], order[~documents.domain[order]])


def control_sides(documents: EffectDocuments) -> Sides:
    """Those that controls are measured on."""
    return Sides(*(rows[documents.control[rows]] for rows in all_sides(documents)))


def beyond_controls(
    documents: EffectDocuments, own: Change, controls: Sequence[Change]
) -> Float[np.ndarray, "document"]:
    """Change of the loss per token less the mean of the controls' on the same document; nan where they have none.

    Differences within rounding are exactly 0.
    """
    others = np.stack([control.loss_per_token(documents) for control in controls])
    beyond = own.loss_per_token(documents) - others.mean(0)
    return np.where(np.abs(beyond) <= ROUNDING * np.abs(others).max(0), 0, beyond)
