"""The row of one layer in the layer comparison."""

from collections.abc import Iterable, Sequence

import pandas as pd

from stratalens.hookpoint import Hookpoint
from stratalens.ranking.layer_facts import LayerFacts
from stratalens.validation.transfer import TransferScore, claim_passed


def passed_count(scores: Iterable[Sequence[TransferScore]], names: Iterable[str]) -> int | None:
    """How many features transfer in all validations; None where none was tested."""
    tested = [passed for own in scores if (passed := claim_passed(own, names)) is not None]
    return sum(tested) if tested else None


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
