"""Numbers out of a harvest: selected on the discovery half, estimated and tested on the confirmation half.

Everything here is pure: tables come out of statistics, nothing is read but the harvest. May import: harvest and what
lies below. Main types: Ranking, LayerFacts.
"""

from stratalens.ranking.rank import Ranking, rank_features

__all__ = ["Ranking", "rank_features"]
