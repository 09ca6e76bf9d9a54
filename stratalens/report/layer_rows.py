"""The row of one layer in the layer comparison."""

import pandas as pd

from stratalens.hookpoint import Hookpoint
from stratalens.ranking.layer_facts import LayerFacts


def passed_count(verdicts: pd.Series) -> int | None:
    """How many features passed a test; None where none was put to it."""
    return int(verdicts.sum()) if verdicts.notna().any() else None


def layer_row(
    hookpoint: Hookpoint, features: pd.DataFrame, verdicts: pd.DataFrame, latents: pd.DataFrame, facts: LayerFacts
) -> dict[str, object]:
    """The row of one layer in the layer comparison.

    Args:
        hookpoint: of the layer.
        features: its reported features.
        verdicts: which tests each of them passed, see `claim_verdicts`.
        latents: all its latents.
        facts: what is known of the layer besides.
    """
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
        "confirmed_features": passed_count(verdicts["confirmed"]),
        "avg_auroc": features["auroc"].mean(),
        "live_latents": len(live),
        "avg_specialization_live_latents": live["specialization"].mean(),
        "avg_normalised_specialization_live_latents": live["normalised_specialization"].mean(),
        "fvu": facts.fvu,
        "mean_hookpoint_norm": facts.mean_hookpoint_norm,
        "dropped_positions_share": facts.dropped_share,
        "transferring_features": passed_count(verdicts["transfers"]),
        "features_in_context": passed_count(verdicts["token_test"]),
        "causal_features": passed_count(verdicts["causal"]),
    }
