"""One pass over the text for all layers, bounded state.

Text is cut into shards; a worker reads a shard with the model and its SAEs; what it leaves of a layer is stored under a
name that follows from all it depends on, and folded in shard order. May import: saes, models, corpus, config, files.
Main types: Harvest, FeatureStats (of `state/`).
"""

from stratalens.harvest.harvest import read_corpus
from stratalens.harvest.state.statistics import FeatureStats

__all__ = ["FeatureStats", "read_corpus"]
