"""The row of one layer in the layer comparison."""

from collections.abc import Mapping, Sequence

import pandas as pd

from stratalens.hookpoint import Hookpoint
from stratalens.ranking.layer_facts import LayerFacts
from stratalens.validation.transfer import TransferScore, claim_passed


def passed_counts(validations: Mapping[Hookpoint, Mapping[int, Sequence[TransferScore]]]) -> list[int | None]:
    """How many reported features of each layer transfer in all validations; None where none was tested.

    Args:
        validations: hookpoint -> feature -> its scores.
    """
    names = {score.name for own in validations.values() for scores in own.values() for score in scores}
    counts = list[int | None]()
    for own in validations.values():
        tested = [passed for scores in own.values() if (passed := claim_passed(scores, names)) is not None]
        counts.append(sum(tested) if tested else None)
    return counts


def layer_row(
    hookpoint: Hookpoint, features: pd.DataFrame, latents: pd.DataFrame, facts: LayerFacts
) -> dict[str, object]:
    """The row of one layer in the layer comparison, but for `transferring_features`."""
    raw, normalised = features["specialization"], features["normalised_specialization"]
    live = latents[latents["live"]]
    best = raw.idxmax() if len(features) else None
    return {
        "layer": hookpoint.block,
        "total_features": len(features),
        "avg_specialization": raw.mean(),
        "max_specialization": raw.max(),
        "min_specialization": raw.min(),
        "std_specialization": raw.std(ddof=0),
        "top_feature": features["feature_number"].iloc[best] if best is not None else None,
        "top_specialization": raw.max(),
        "site": hookpoint.site_name,
        "avg_normalised_specialization": normalised.mean(),
        "max_normalised_specialization": normalised.max(),
        "confirmed_features": int(features["confirmed"].sum()) if features["confirmed"].notna().any() else None,
        "avg_auroc": features["auroc"].mean(),
        "live_latents": len(live),
        "avg_specialization_live_latents": live["specialization"].mean(),
        "avg_normalised_specialization_live_latents": live["normalised_specialization"].mean(),
        "fvu": facts.fvu,
        "mean_hookpoint_norm": facts.mean_hookpoint_norm,
        "dropped_positions_share": facts.dropped_share,
    }
