"""Try SAEs at hookpoints: one pass over a few passages serves all of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import BatchRunner, TokenBatch
from stratalens.models.hooks import forward, hooked
from stratalens.saes.fit_candidates import Trial, places_of
from stratalens.saes.fit_numbers import FitSums

SINK_RATIO = 10.0
"""Positions whose norm exceeds this multiple of the layer's median norm are attention sinks."""


@dataclass(frozen=True)
class TrialMeasurement:
    """What passages give for one trial."""

    sums: FitSums
    norms: tuple[Float[Tensor, "_"], ...]
    """Of the vectors that it reads at the countable positions, sinks included; of a trial at its own hookpoint."""
    fired: Int[Tensor, "latent"] | None
    """On how many tokens each latent fired; of such a trial too."""

    def plus(self, other: "TrialMeasurement") -> "TrialMeasurement":
        """What both together give."""
        fired = None if self.fired is None or other.fired is None else self.fired + other.fired
        return TrialMeasurement(self.sums.plus(other.sums), self.norms + other.norms, fired)


def measure(
    model: nn.Module, trials: Sequence[Trial], batches: Iterable[TokenBatch], batch_tokens: int
) -> dict[Trial, TrialMeasurement]:
    """Try every SAE where its trials say, in one pass over some passages.

    Args:
        model: the decoder, with the blocks of the trials.
        trials: SAEs and where to try them, encoders on the model's device.
        batches: the passages, on the model's device.
        batch_tokens: most tokens of a batch; a batch that does not fit into memory is halved.

    Returns:
        Trial -> what it gave. Missing are those where the vectors have another width than the SAE.

    Raises:
        CapacityError: memory does not suffice for a single passage.
    """
    totals: dict[Trial, TrialMeasurement] = {}
    runner = BatchRunner(batch_tokens)
    for batch in batches if trials else ():
        for found in runner.run(batch, partial(_measure_batch, model, trials)):
            totals |= {trial: totals[trial].plus(own) if trial in totals else own for trial, own in found.items()}
    return totals


def _measure_batch(model: nn.Module, trials: Sequence[Trial], batch: TokenBatch) -> Mapping[Trial, TrialMeasurement]:
    trial_batch = _TrialBatch(trials, batch)
    places = places_of(trials)
    with hooked(model, {hookpoint: partial(trial_batch.receive, hookpoint) for hookpoint in places}):
        forward(model, batch.input_ids)
    return trial_batch.measured


class _Encoded(NamedTuple):
    """What an SAE makes of the vectors of one batch that it reads."""

    keep: Bool[Tensor, "batch seq"]
    reconstruction: Float[Tensor, "token width"]
    latent: Int[Tensor, "entry"]
    """Number of each latent that fired on a token."""
    norms: Float[Tensor, "position"]


@dataclass
class _TrialBatch:
    """The trials on one batch, each made as soon as the model has passed what it reads and what it reconstructs."""

    trials: Sequence[Trial]
    batch: TokenBatch
    measured: dict[Trial, TrialMeasurement] = field(default_factory=dict)
    encoded: dict[tuple[int, Hookpoint], _Encoded] = field(default_factory=dict)
    """What waits for the vectors that it reconstructs."""
    targets: dict[Hookpoint, Tensor] = field(default_factory=dict)
    """What waits for the vectors that it is reconstructed from."""

    def receive(self, hookpoint: Hookpoint, vectors: Float[Tensor, "batch seq width"]) -> None:
        """Make the trials that waited for the vectors at a hookpoint."""
        vectors = vectors.to(self.batch.countable.device)  # differs only if the model is spread over several GPUs
        for trial in self.trials:
            if trial.reads == hookpoint and (trial.is_own or vectors.shape[-1] == trial.probe.sae.d_model):
                key = id(trial.probe), hookpoint
                if key not in self.encoded:
                    self.encoded[key] = self._encode(trial, vectors)
            if trial.reads != hookpoint == trial.target and (id(trial.probe), trial.reads) not in self.encoded:
                self.targets[hookpoint] = vectors.clone()  # the model may go on to change it in place
        for trial in self.trials:
            if hookpoint in (trial.reads, trial.target) and trial not in self.measured:
                target = vectors if trial.target == hookpoint else self.targets.get(trial.target)
                encoded = self.encoded.get((id(trial.probe), trial.reads))
                if encoded is not None and target is not None:
                    self._compare(trial, encoded, target)
        self._forget()

    def _encode(self, trial: Trial, vectors: Float[Tensor, "batch seq width"]) -> _Encoded:
        norms = torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32)
        countable_norms = norms[self.batch.countable]
        median = countable_norms[torch.isfinite(countable_norms)].median()  # one NaN would make it NaN, and drop all
        keep = self.batch.countable & (norms <= SINK_RATIO * median)
        x = vectors[keep]
        latents = trial.probe.sae.encode(x)
        return _Encoded(keep, trial.probe.sae.decode(latents, x), latents.latent, countable_norms)

    def _compare(self, trial: Trial, encoded: _Encoded, target: Float[Tensor, "batch seq width"]) -> None:
        if not trial.is_own and target.shape[-1] != encoded.reconstruction.shape[-1]:
            return
        sums = FitSums.of(target[encoded.keep].float(), encoded.reconstruction, len(encoded.latent))
        if trial.is_own:
            fired = torch.bincount(encoded.latent, minlength=trial.probe.sae.num_latents)
            self.measured[trial] = TrialMeasurement(sums, (encoded.norms,), fired)
        else:
            self.measured[trial] = TrialMeasurement(sums, (), None)

    def _forget(self) -> None:
        """Free what no trial waits for any more."""
        waiting = {(id(trial.probe), trial.reads) for trial in self.trials if trial not in self.measured}
        self.encoded = {key: own for key, own in self.encoded.items() if key in waiting}
