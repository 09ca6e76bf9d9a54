"""A name for each feature, and how well it predicts the feature on text it was not made from.

Labels come from the evidence and a lexicon of concepts (`concepts/`), or from a language model (`llm/`), which also
judges them. May import: evidence and the packages before it. Main types: FeatureReport, FeatureLabel.
"""

from stratalens.labels.feature_label import FeatureLabel
from stratalens.labels.feature_report import FeatureReport
from stratalens.labels.labelling import label_features

__all__ = ["FeatureLabel", "FeatureReport", "label_features"]
