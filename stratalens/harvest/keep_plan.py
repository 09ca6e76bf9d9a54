"""Which token-level codes the harvest keeps: decided by hashes before the text is read, within a budget of bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from stratalens.corpus.survey import DocumentRow
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint

CODE_BYTES = 5.0
"""Bytes of an entry (token, latent, activation) on disk, compressed: 4.7 with the embedded SAEs."""
CANDIDATES_SHARE = 2.0
"""While text is read, this many times the bytes that are left for the strongest passages may hold candidates."""


class Keep(IntEnum):
    """Which passages of a text are kept with their codes."""

    NOTHING = 0
    STRONGEST = 1
    """Those in which a latent is among its strongest, so far as bytes are left for them."""
    EVERYTHING = 2


@dataclass(frozen=True)
class KeepPlan:
    """What is kept with its codes: sampled documents first, in the order of the sample, then the strongest passages."""

    documents: Mapping[int, int] = field(default_factory=dict)
    """Sampled document of which all passages are kept -> its place in the order of the sample."""
    candidates: float = 0.0
    """Share of the other texts, chosen by their hashes, of which the strongest passages are kept for a choice at the
    end."""
    layer_bytes: Mapping[Hookpoint, int] = field(default_factory=dict)
    """Hookpoint -> bytes that its codes may take in the result."""

    def keep(self, row: DocumentRow) -> Keep:
        """What is kept of a text."""
        if row.document in self.documents:
            return Keep.EVERYTHING
        return Keep.STRONGEST if hash64("keep", row.content) < self.candidates * 2**64 else Keep.NOTHING


KEEP_NOTHING = KeepPlan()


def plan_kept(
    sample: Mapping[int, int], kept_characters: int, code_bytes: Mapping[Hookpoint, float], budget: int
) -> KeepPlan:
    """Divide the budget: among the layers as their SAEs need it, and among the texts in the order of the sample.

    Args:
        sample: sampled document -> characters of its texts, in the order in which they are kept.
        kept_characters: of all texts that count.
        code_bytes: hookpoint -> bytes that codes take for each character of text, as the fit check suggests.
        budget: bytes for the codes of all layers.
    """
    rate = sum(code_bytes.values())
    if not rate or not budget:
        return KEEP_NOTHING
    kept: dict[int, int] = {}
    left = float(budget)
    for place, (document, characters) in enumerate(sample.items()):
        if characters * rate <= left:
            kept[document] = place
            left -= characters * rate
    others = kept_characters - sum(sample.values())
    complete = len(kept) == len(sample)
    candidates = min(1.0, CANDIDATES_SHARE * left / (others * rate)) if others and complete else 0.0
    shares = {hookpoint: int(budget * own / rate) for hookpoint, own in code_bytes.items()}
    return KeepPlan(kept, candidates, shares)
