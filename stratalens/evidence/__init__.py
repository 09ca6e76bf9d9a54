"""What fires a feature: passages token by token, near misses, top tokens, the logit lens.

The harvest tells where the strongest passages are; a second, small pass of the model reads them and a sample of all
text. May import: ranking and what lies below. Main types: Evidence, CollectedEvidence.
"""

from stratalens.evidence.collect import collect_evidence
from stratalens.evidence.evidence import Evidence

__all__ = ["Evidence", "collect_evidence"]
