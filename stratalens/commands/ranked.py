"""Rank the features of a run, and say how surely they were selected, and which features fire less on the domain."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stratalens.config.options import RunConfig
from stratalens.hookpoint import Hookpoint
from stratalens.ranking import Ranking, rank_features
from stratalens.ranking.estimates import RankingInput
from stratalens.ranking.opposed import with_opposed
from stratalens.ranking.seed_match import with_seed_match
from stratalens.validation.stability import with_top_n_probability


def ranked(
    config: RunConfig,
    sources: Mapping[Hookpoint, RankingInput],
    listed: Mapping[Hookpoint, Sequence[int]] | None,
    *,
    split: bool,
    digests: Mapping[Hookpoint, str],
) -> Ranking:
    """Rank the features of all layers, with all that is computed together with their order.

    Args:
        config: how many features are reported, by which order, and the seed.
        sources: hookpoint -> statistics and documents.
        listed: hookpoint -> latents to report instead of the best ones.
        split: whether documents were reserved for confirmation.
        digests: hookpoint -> SHA-256 of the weight file of its SAE.
    """
    top_n, rank_by = config.top_n, config.rank_by
    ranking = rank_features(sources, top_n=top_n, rank_by=rank_by, split=split, listed=listed)
    ranking = with_top_n_probability(ranking, sources, top_n=top_n, rank_by=rank_by, seed=config.seed)
    latents = with_opposed(ranking.latents, sources, top_n=top_n, rank_by=rank_by, split=split)
    return with_seed_match(replace(ranking, latents=latents), digests)
