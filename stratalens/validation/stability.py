"""How surely a feature is among the reported ones of its layer: selected again from documents that are drawn again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from stratalens.corpus import Half, Populations, Side
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.hookpoint import Hookpoint
from stratalens.ranking import Ranking
from stratalens.ranking.estimates import RankingInput, document_rows
from stratalens.ranking.rank import TOP_N_PROBABILITY
from stratalens.validation.relabelling import Dealt
from stratalens.validation.selection import placements, select

DRAWS = 200
"""Times that the documents are drawn again."""


def with_top_n_probability(
    ranking: Ranking, sources: Mapping[Hookpoint, RankingInput], *, top_n: int, rank_by: str, seed: int
) -> Ranking:
    """Add the share of draws in which each candidate would be among the `top_n` of its layer.

    Args:
        ranking: of the run; others than its candidates get no value.
        sources: hookpoint -> statistics and documents, of which one at a time is held.
        top_n: features that a run reports per layer.
        rank_by: one of `RANK_METRICS`.
        seed: of the run.
    """
    top, latents = dict(ranking.top), dict(ranking.latents)
    for hookpoint, candidates in ranking.candidates.items():
        table, reported = latents[hookpoint], top[hookpoint]
        own = top_n_probabilities(sources[hookpoint], candidates, top_n=top_n, rank_by=rank_by, seed=seed)
        values = pd.Series(own, index=candidates, dtype=np.float64).reindex(table["feature_number"]).to_numpy()
        latents[hookpoint] = table.assign(**{TOP_N_PROBABILITY: values})
        top[hookpoint] = reported.assign(**{TOP_N_PROBABILITY: values[reported["feature_number"]]})
    return replace(ranking, top=top, latents=latents)


def top_n_probabilities(
    source: RankingInput, candidates: Sequence[int], *, top_n: int, rank_by: str, seed: int
) -> Float[np.ndarray, "candidate"]:
    """Share of the draws in which each candidate is among the `top_n` best of them on the discovery half.

    Efron 1979, the bootstrap: documents are drawn with replacement within side and kind, as many as there are.

    Args:
        source: statistics and documents of a hookpoint.
        candidates: numbers of live latents.
        top_n, rank_by, seed: as in `with_top_n_probability`.
    """
    if not candidates:
        return np.zeros(0)
    own = source._replace(stats=source.stats.only(np.sort(candidates)))
    picks = select(own, drawn_again(source.documents, source.populations, seed), rank_by, top_n, placements)
    numbers, counts = np.unique(picks, return_counts=True)
    return pd.Series(counts / DRAWS, index=numbers).reindex(candidates, fill_value=0.0).to_numpy()


def drawn_again(documents: DocumentMatrix, populations: Populations, seed: int) -> list[Dealt]:
    """Draw the discovery documents of each side and kind again, with replacement.

    Args:
        documents: those of one hookpoint; the same documents are drawn at every hookpoint.
        populations: those of the run.
        seed: of the run.

    Returns:
        One entry a kind.
    """
    rng = np.random.default_rng([seed, 3])
    drawn = list[Dealt]()
    for stratum in range(len(populations.strata)):
        sides = document_rows(documents, populations, Half.DISCOVERY, stratum)
        drawn.append(
            {
                (Half.DISCOVERY, side): rows[rng.integers(0, len(rows), (DRAWS, len(rows)))]
                for side, rows in zip(Side, sides, strict=True)
            }
        )
    return drawn
