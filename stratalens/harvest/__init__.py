"""One pass over the text for all layers, with state of bounded size.

The text is cut into shards, and a worker reads each shard with the model and its SAEs. The resulting state of each
layer is stored under a key, a hash of everything it depends on; the states are then merged in shard order. May import:
saes, models, corpus, config, files. Main types: Harvest, FeatureStats (in `state/`).
"""

from stratalens.harvest.harvest import read_corpus
from stratalens.harvest.state.statistics import FeatureStats

__all__ = ["FeatureStats", "read_corpus"]
