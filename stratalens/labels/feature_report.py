"""Everything that a result says of one feature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stratalens.evidence.examples import Example
from stratalens.evidence.logit_lens import FeatureLens
from stratalens.evidence.top_tokens import TopToken
from stratalens.hookpoint import Hookpoint
from stratalens.labels.evidence_labels import Support
from stratalens.labels.feature_label import FeatureLabel


class LexiconShares(NamedTuple):
    """Shares of one feature's activation; None where the domain has no lexicon, or the feature does not fire."""

    lexicon_share_input: float | None = None
    """On tokens that belong to a term of the domain's lexicon."""
    lexicon_share_output: float | None = None
    """On tokens that are followed by the first token of a term."""


NO_SHARES = LexiconShares()


@dataclass(frozen=True)
class FeatureReport:
    """One reported feature: its statistics, its label, and the evidence for it."""

    hookpoint: Hookpoint
    feature: int
    """Number of the latent."""
    statistics: Mapping[str, Any]
    """Its row in the table of the ranking."""
    label: FeatureLabel
    support: Support
    """Phrases and concepts that it prefers."""
    top_tokens: list[TopToken]
    """Tokens with most of its activation."""
    lens: FeatureLens | None
    """Tokens that it promotes and suppresses, see `CollectedEvidence`."""
    examples: list[Example]
    """Passages; none if corpus text is to be kept out of files."""
    lexicon: LexiconShares = NO_SHARES
    """How much of its activation has to do with the lexicon's terms."""


Reports = dict[Hookpoint, list[FeatureReport]]
"""Hookpoint -> its reported features, in the order of the evidence."""
