"""The orders that are compared: every `--rank_by`, and candidates for the one that carries over best."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from document_values import ranking_input
from transfer_data import Documents, Texts

from stratalens.config.result_options import RANK_METRICS
from stratalens.corpus import Half, Populations
from stratalens.corpus.populations import Population, Side
from stratalens.ranking.estimates import RankingInput, estimates
from stratalens.ranking.separation import separation

Orders = Mapping[str, np.ndarray]
"""Name of an order -> value of each latent, -inf for dead ones."""
CANDIDATES = (
    "low",
    "low firing",
    "low x share",
    "transfer x share",
    "transfer x root share",
    "worst kind",
    "mean - SD",
)
"""Orders that are no `--rank_by`. `low` is the lower limit of the stratified AUROC, `low firing` that of the AUROC of
firing at all, `share` the domain share; the last two are of the AUROCs of the kinds."""
ORDERS = (*RANK_METRICS, *CANDIDATES)


def orders_of(texts: Texts, layer: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Orders:
    """Value of every latent in each order, from the documents that features are selected on."""
    documents = texts.layers[layer]
    table = estimates(_ranking_input(documents, pairs), Half.DISCOVERY)
    kinds = np.stack([separation([(documents.dense[x], documents.dense[y])]).auroc for x, y in pairs])
    fires = [(np.sign(documents.dense[x]), np.sign(documents.dense[y])) for x, y in pairs]
    low, firing, share = table["auroc_low"], pd.Series(separation(fires).interval.low), table["domain_share"]
    columns = {name: table[name] for name in RANK_METRICS} | {
        "low": low,
        "low firing": firing,
        "low x share": low * share,
        "transfer x share": table["transfer"] * share,
        "transfer x root share": table["transfer"] * np.sqrt(share),
        "worst kind": pd.Series(kinds.min(0)),
        "mean - SD": pd.Series(kinds.mean(0) - kinds.std(0)),
    }
    live = table["live"].to_numpy()
    return {name: np.where(live, column.fillna(-np.inf).to_numpy(float), -np.inf) for name, column in columns.items()}


def _ranking_input(documents: Documents, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> RankingInput:
    """What the product ranks from, if the text is these documents, all in one half."""
    populations = Populations(tuple(f"kind {number}" for number in range(len(pairs))) if len(pairs) > 1 else ("",))
    rows = np.concatenate([side for pair in pairs for side in pair])
    population = np.concatenate(
        [
            np.full(len(pair[side]), Population(side, Half.DISCOVERY, number).number)
            for number, pair in enumerate(pairs)
            for side in Side
        ]
    )
    return ranking_input(documents.dense[rows], population, populations, documents.decoder_norms)
