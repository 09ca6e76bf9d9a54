"""Random tokens that are as frequent in general text as given ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from stratalens.corpus import Side
from stratalens.evidence import Evidence


def general_counts(evidence: Evidence) -> Int[np.ndarray, "token_id"]:
    """How often each token id occurs in the general passages of the evidence, up to the largest id in any passage."""
    largest = max(int(passage.token_ids.max()) for passage in evidence.passages)
    general = [passage.token_ids for passage in evidence.passages if passage.side == Side.GENERAL]
    return np.bincount(np.concatenate(general or [np.zeros(0, np.int64)]), minlength=largest + 1)


@dataclass(frozen=True)
class FrequencyBins:
    """Tokens in bins by how often they occur: not at all, once, 2 to 3 times, 4 to 7 times, and so on."""

    bin_of: Int[np.ndarray, "token_id"]
    """Bin of each token id."""
    members: tuple[Int[np.ndarray, "token"], ...]
    """The ids of each bin that may be drawn, rising."""

    @classmethod
    def of(cls, counts: Int[np.ndarray, "token_id"], allowed: Int[np.ndarray, "token"]) -> "FrequencyBins":
        """Put tokens into bins.

        Args:
            counts: how often each token id occurs; ids beyond do not occur.
            allowed: ids that may be drawn, at least one.
        """
        assert len(allowed)
        padded = np.zeros(max(len(counts), int(allowed.max()) + 1), np.int64)
        padded[: len(counts)] = counts
        bins = np.ceil(np.log2(padded + 1)).astype(np.int64)
        members = (np.sort(allowed[bins[allowed] == number]) for number in range(int(bins.max()) + 1))
        return cls(bins, tuple(members))

    def draw_like(self, token_ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        """A random token for each of these, of its bin, or of the nearest bin that has any."""
        drawn = []
        for token_id in token_ids:
            own = self.bin_of[token_id]
            nearest = min(
                (number for number, ids in enumerate(self.members) if len(ids)),
                key=lambda number: (abs(number - own), number),
            )
            drawn.append(int(rng.choice(self.members[nearest])))
        return drawn
