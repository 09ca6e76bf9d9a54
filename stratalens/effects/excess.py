"""How much more an ablation costs the domain than general text, beyond its controls, from plain arrays of losses."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from stratalens.effects.beside_controls import ROUNDING
from stratalens.effects.document_bootstrap import bootstrap_differences
from stratalens.effects.layer_effects import MIN_RANKED_CONTROLS, Excess, holm

Key = TypeVar("Key")


def excess(
    own_domain: Float[np.ndarray, "domain_document"],
    own_general: Float[np.ndarray, "general_document"],
    control_domain: Float[np.ndarray, "draw domain_document"],
    control_general: Float[np.ndarray, "draw general_document"],
    seed: int,
) -> Excess:
    """Compare what an ablation costs the documents of each side with what its controls cost the same documents.

    Args:
        own_domain, own_general: what the ablation costs each document, in an order that does not depend on that in
            which documents come.
        control_domain, control_general: what each control costs them.
        seed: of the bootstrap.

    Returns:
        With `holm_p` of this comparison alone, which `corrected` replaces.
    """
    sides = ((own_domain, control_domain), (own_general, control_general))
    x, y = (_beyond(own, controls)[:, None] for own, controls in sides)
    [estimate] = bootstrap_differences(x, y, seed)
    own_difference = float(own_domain.mean() - own_general.mean())
    others = (control_domain.mean(1) - control_general.mean(1)).tolist()
    rank, number = 1 + sum(other >= own_difference for other in others), len(others)
    rank_p = rank / (number + 1) if number >= MIN_RANKED_CONTROLS else None
    return Excess(*estimate, estimate.p_value, rank, number, rank_p, min(others), max(others))


def corrected(excesses: Mapping[Key, Excess | None]) -> dict[Key, Excess | None]:
    """The same with Holm's p-values over all that are not None."""
    found = {key: one for key, one in excesses.items() if one is not None}
    adjusted = holm(np.array([one.p_value for one in found.values()])).tolist()
    return dict(excesses) | {key: found[key]._replace(holm_p=p) for key, p in zip(found, adjusted, strict=True)}


def _beyond(
    own: Float[np.ndarray, "document"], controls: Float[np.ndarray, "draw document"]
) -> Float[np.ndarray, "document"]:
    """Own cost less the mean of the controls'; differences within rounding are exactly 0."""
    beyond = own - controls.mean(0)
    return np.where(np.abs(beyond) <= ROUNDING * np.abs(controls).max(0), 0.0, beyond)
