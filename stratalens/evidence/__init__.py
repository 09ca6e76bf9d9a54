"""What fires a feature: passages token by token, near misses, top tokens, the logit lens.

The harvest gives the locations of the strongest passages; a second, short pass of the model reads them and a sample of
all text. May import: ranking and the rooms that it may import. Main types: Evidence, CollectedEvidence.
"""

from stratalens.evidence.collect import collect_evidence
from stratalens.evidence.evidence import Evidence

__all__ = ["Evidence", "collect_evidence"]
