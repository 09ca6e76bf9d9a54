"""Ranked features from a harvest: selected on the discovery half, estimated and tested on the confirmation half.

Everything here computes tables from statistics; besides the harvest and a user's list of features no file is read. May
import: harvest and the rooms that it may import. Main types: Ranking, LayerFacts.
"""

from stratalens.ranking.rank import Ranking, rank_features

__all__ = ["Ranking", "rank_features"]
