"""The orders that are compared: every `--rank_by`, and candidates for the one that carries over best."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from transfer_data import Documents, Texts

from stratalens.config.result_options import RANK_METRICS
from stratalens.corpus import Half, Populations
from stratalens.corpus.populations import Population, Side
from stratalens.corpus.sources import NO_SOURCES
from stratalens.harvest import FeatureStats
from stratalens.harvest.state.document_sample import DocumentSample, SampledPassages
from stratalens.harvest.state.passage_values import PassageValues
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.ranking.estimates import RankingInput, estimates
from stratalens.ranking.separation import separation

Orders = Mapping[str, np.ndarray]
"""Name of an order -> value of each latent, -inf for dead ones."""
CANDIDATES = (
    "low",
    "low firing",
    "low x share",
    "both lows",
    "both x share",
    "both x root share",
    "worst kind",
    "mean - SD",
)
"""Orders that are no `--rank_by`. `low` is the lower limit of the stratified AUROC, `low firing` that of the AUROC of
firing at all, `both lows` their mean, `share` the domain share; the last two are of the AUROCs of the kinds."""
ORDERS = (*RANK_METRICS, *CANDIDATES)


def orders_of(texts: Texts, layer: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Orders:
    """Value of every latent in each order, from the documents that features are selected on."""
    documents = texts.layers[layer]
    table = estimates(_ranking_input(documents, pairs), Half.DISCOVERY)
    kinds = np.stack([separation([(documents.dense[x], documents.dense[y])]).auroc for x, y in pairs])
    fires = [(np.sign(documents.dense[x]), np.sign(documents.dense[y])) for x, y in pairs]
    low, firing, share = table["auroc_low"], pd.Series(separation(fires).interval.low), table["domain_share"]
    both = (low + firing) / 2
    columns = {name: table[name] for name in RANK_METRICS} | {
        "low": low,
        "low firing": firing,
        "low x share": low * share,
        "both lows": both,
        "both x share": both * share,
        "both x root share": both * np.sqrt(share),
        "worst kind": pd.Series(kinds.min(0)),
        "mean - SD": pd.Series(kinds.mean(0) - kinds.std(0)),
    }
    live = table["live"].to_numpy()
    return {name: np.where(live, column.fillna(-np.inf).to_numpy(float), -np.inf) for name, column in columns.items()}


def _ranking_input(documents: Documents, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> RankingInput:
    """What the product ranks from, as if the text were these documents, each of one passage, all in one half."""
    populations = Populations(tuple(f"kind {number}" for number in range(len(pairs))) if len(pairs) > 1 else ("",))
    rows = np.concatenate([side for pair in pairs for side in pair])
    population = np.concatenate(
        [
            np.full(len(pair[side]), Population(side, Half.DISCOVERY, number).number)
            for number, pair in enumerate(pairs)
            for side in Side
        ]
    )
    dense = documents.dense[rows]
    passage, latent = np.nonzero(dense)
    mean = dense[passage, latent].astype(np.float32)
    ones = np.ones(len(rows), np.int64)
    values = PassageValues(
        population=population,
        tokens=ones,
        countable_positions=ones,
        kept_positions=ones,
        norm_sum=ones.astype(np.float32),
        residual_mean=np.zeros((len(rows), 1), np.float32),
        passage=passage,
        latent=latent,
        mean=mean,
        maximum=mean,
        positions_fired=np.ones(len(passage), np.int64),
        class_mass=np.zeros((len(passage), len(TOKEN_CLASSES)), np.float32),
        early_mass=np.zeros(len(passage), np.float32),
    )
    sampled = SampledPassages(np.arange(len(rows)).astype(np.uint64), np.ones(len(rows), bool))
    matrix = DocumentSample.of(values, sampled).matrix(dense.shape[1])
    return RankingInput(
        FeatureStats.of(values, len(populations)), matrix, documents.decoder_norms, populations, NO_SOURCES
    )
