"""Steering: decoder rows of features are added to the vectors that their SAEs reconstruct, while a model writes.

Added at every kept position: weight x strength x mean activation when active x unit scale x decoder row. Kept are all
positions, of the prompt and of what is written, but position 0 and special tokens. So strength 1 adds what the feature
itself contributes where it fires as it usually does (compare Templeton et al. 2024, "Scaling monosemanticity", who
clamp a feature to a multiple of its highest activation instead).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratalens.config.steer_options import WeightedFeature
from stratalens.corpus import Populations, Side
from stratalens.harvest import FeatureStats
from stratalens.hookpoint import Hookpoint
from stratalens.models.hooks import Consumer
from stratalens.saes.contributions import decoder_rows, unit_scale
from stratalens.saes.sae import Sae, SaeFile
from stratalens.saes.steps import Normalise

HOST = torch.device("cpu")


def mean_when_active(stats: FeatureStats, populations: Populations, feature: int) -> float | None:
    """Mean activation of a feature over the kept positions of domain text at which it fires, of both halves.

    Returns:
        the mean, in the units of the SAE's own activations; None where the feature never fires there.
    """
    own = np.flatnonzero(stats.latents == feature)
    domain = populations.where(side=Side.DOMAIN)
    fired = int(stats.positions_fired[np.ix_(domain, own)].sum())
    return None if fired == 0 else float(stats.activation_sum[np.ix_(domain, own)].sum()) / fired


@dataclass(frozen=True)
class Addition:
    """What the features of one SAE add to the vectors that it reconstructs."""

    hookpoint: Hookpoint
    """Where the SAE reads."""
    target: Hookpoint
    """Where the vectors are to which is added."""
    sae: Sae
    vector: Float[Tensor, "d_out"]
    """Sum over features of coefficient x decoder row, before the unit scale; in float32 on the host."""

    @classmethod
    def of(cls, file: SaeFile, coefficients: Mapping[int, float]) -> "Addition":
        """Read the decoder rows of features.

        Args:
            file: the SAE.
            coefficients: feature -> weight x strength x mean activation when active.

        Raises:
            CheckpointError: the SAE is damaged.
        """
        sae = file.load()
        rows = decoder_rows(sae, list(coefficients), HOST)
        vector = torch.tensor(list(coefficients.values()), dtype=torch.float32) @ rows
        return cls(file.hookpoint, file.target, sae, vector)

    @property
    def is_constant(self) -> bool:
        """Whether the same is added at every position: not by an SAE that brings every vector to one scale."""
        return not any(isinstance(step, Normalise) and step.undone for step in self.sae.steps)

    def at(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_out"]:
        """What is added at each token, in the units of the reconstructed vectors, in float32.

        Args:
            x: the vectors that the SAE reads.
        """
        return unit_scale(self.sae, x)[:, None] * self.vector.to(x.device)

    def constant(self) -> Float[Tensor, "d_out"]:
        """What is added at every position, where that is the same."""
        assert self.is_constant
        return self.at(torch.ones(1, self.sae.d_model))[0]


def additions_of(
    features: Sequence[WeightedFeature],
    means: Mapping[WeightedFeature, float],
    saes: Mapping[Hookpoint, SaeFile],
    strength: float,
) -> list[Addition]:
    """What features add, one addition for each SAE.

    Args:
        features: different ones.
        means: feature -> its mean activation when active.
        saes: hookpoint -> SAE.
        strength: what all weights are multiplied by; may be negative.

    Raises:
        CheckpointError: an SAE is damaged.
    """
    coefficients: dict[Hookpoint, dict[int, float]] = {}
    for own in features:
        of_sae = coefficients.setdefault(own.hookpoint, {})
        of_sae[own.feature] = own.weight * strength * means[own]
    return [Addition.of(saes[place], coefficients[place]) for place in sorted(coefficients)]


class Steering:
    """Adds to the vectors of one text as a model reads it, all at once or piece by piece.

    Args:
        additions: what is added.
        special_ids: ids of the special tokens, where nothing is added.
    """

    def __init__(self, additions: Sequence[Addition], special_ids: Collection[int]):
        self._additions = tuple(additions)
        self._special = torch.tensor(sorted(special_ids), dtype=torch.long)
        self._kept = torch.zeros(0, dtype=torch.bool)
        self._added: dict[Hookpoint, Float[Tensor, "seq d_out"]] = {}

    def next_tokens(self, ids: Int[Tensor, "seq"], first: int) -> None:
        """Announce which tokens the next forward pass reads.

        Args:
            ids: their ids, on the host.
            first: position of the first of them in the text.
        """
        positions = torch.arange(first, first + len(ids))
        self._kept = (positions > 0) & ~torch.isin(ids, self._special)
        self._added = {}

    def consumers(self) -> dict[Hookpoint, Consumer]:
        """Hookpoint -> function that reads its vectors, and adds to them where an SAE reconstructs them."""
        targets = {own.target for own in self._additions}
        return {
            place: self._adder(place) if place in targets else self._reader(place)
            for place in sorted(targets | {own.hookpoint for own in self._additions})
        }

    def _reader(self, place: Hookpoint) -> Consumer:
        def read(vectors: Float[Tensor, "1 seq d_model"]) -> None:
            assert len(vectors[0]) == len(self._kept), "the tokens of this pass were not announced"
            for own in (own for own in self._additions if own.hookpoint == place):
                added, before = own.at(vectors[0]), self._added.get(own.target)
                self._added[own.target] = added if before is None else before.to(added.device) + added

        return read

    def _adder(self, place: Hookpoint) -> Consumer:
        read = self._reader(place)

        def add(vectors: Float[Tensor, "1 seq d_out"]) -> Float[Tensor, "1 seq d_out"]:
            read(vectors)
            added = self._added[place].to(vectors.device)
            kept = self._kept.to(vectors.device)[:, None]
            return torch.where(kept, vectors[0].float() + added, vectors[0].float()).to(vectors.dtype)[None]

        return add
