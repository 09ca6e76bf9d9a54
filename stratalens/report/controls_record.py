"""The controls of a run as `run.json` holds them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from stratalens.files.result_names import RANDOM_FOLDER
from stratalens.harvest.other_text import other_harvest_path
from stratalens.harvest.store import HarvestFile
from stratalens.hookpoint import Hookpoint
from stratalens.report.record_part import RecordPart
from stratalens.validation.controls import Controls, HookpointControls
from stratalens.validation.probes import FeatureProbe

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class ChanceRateRecord(RecordPart):
    """In how many repetitions at least one feature was confirmed by chance."""

    repetitions: Annotated[int, Field(gt=0)]
    with_discovery: Count
    rate: Share
    low: Share
    high: Share


class HeldOutAurocRecord(RecordPart):
    """How well a probe tells the sides of held-out documents apart, with its 95% interval."""

    auroc: Share
    low: Share
    high: Share
    domain_documents: Count
    general_documents: Count


class FeatureProbeRecord(RecordPart):
    """A logistic probe on the best reported features."""

    features: Annotated[int, Field(gt=0)]
    held_out: HeldOutAurocRecord


class LayerGapRecord(RecordPart):
    """How far a layer is behind the best one, with its 95% interval."""

    difference: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the difference may be 0."""
        return self.low <= 0 <= self.high


class RandomDirectionsRecord(RecordPart):
    """The best latents of an SAE of random directions."""

    features: Count
    confirmed: Count
    average_auroc: Share
    average_specialization: float
    """Normalised."""
    best_features: Annotated[list[FeatureProbeRecord], Field(max_length=16)]


class HookpointControlsRecord(RecordPart):
    """The controls of one hookpoint."""

    null_discoveries: Count | None
    """Splits of the general documents with a confirmed feature here."""
    shuffled_discoveries: Count | None
    """Shuffles of the sides with a confirmed feature here."""
    mean_difference: HeldOutAurocRecord | None
    logistic_probe: HeldOutAurocRecord | None
    best_features: Annotated[list[FeatureProbeRecord], Field(max_length=16)]
    behind_best: LayerGapRecord | None
    """None at the best hookpoint."""
    random_directions: RandomDirectionsRecord | None = None
    """None without `--controls full`."""


class ControlsRecord(RecordPart):
    """The controls of a run."""

    null_contrast: ChanceRateRecord | None
    """None where there are too few general documents."""
    shuffled_labels: ChanceRateRecord | None
    words: HeldOutAurocRecord | None
    """A logistic regression on the words of the texts."""
    hookpoints: dict[str, HookpointControlsRecord]
    """By the hookpoints of the run."""
    random_keys: dict[str, str] = Field(default_factory=dict)
    """Hookpoint -> key of the harvest of its SAE of random directions; empty without `--controls full`."""

    @classmethod
    def of(cls, controls: Controls, random_keys: Mapping[Hookpoint, str]) -> "ControlsRecord":
        """The record of these controls."""
        parts: dict[str, Any] = {
            name: None if value is None else value._asdict()
            for name, value in (
                ("null_contrast", controls.null_contrast),
                ("shuffled_labels", controls.shuffled_labels),
                ("words", controls.words),
            )
        }
        own = {str(place): _of_hookpoint(found) for place, found in controls.hookpoints.items()}
        keys = {str(place): key for place, key in random_keys.items()}
        return cls.model_validate(parts | {"hookpoints": own, "random_keys": keys})

    def random_files(self, output_dir: Path) -> dict[Hookpoint, HarvestFile]:
        """Hookpoint -> the harvest of its SAE of random directions, in an output directory."""
        places = {Hookpoint.parse(place): key for place, key in self.random_keys.items()}
        return {
            place: HarvestFile(output_dir / other_harvest_path(RANDOM_FOLDER, place), key)
            for place, key in places.items()
        }

    @property
    def numbers_of_features(self) -> list[int]:
        """The numbers of features that probes read at any hookpoint, rising."""
        return sorted({probe.features for own in self.hookpoints.values() for probe in own.best_features})

    def as_good_as_best(self) -> list[Hookpoint]:
        """The other hookpoints whose difference to the best one is within noise."""
        gaps = {Hookpoint.parse(place): own.behind_best for place, own in self.hookpoints.items()}
        return [place for place, gap in gaps.items() if gap is not None and gap.within_noise]


def _of_hookpoint(controls: HookpointControls) -> dict[str, Any]:
    own, random = controls.ceilings, controls.random_directions
    return {
        "null_discoveries": controls.null_discoveries,
        "shuffled_discoveries": controls.shuffled_discoveries,
        "mean_difference": None if own.mean_difference is None else own.mean_difference._asdict(),
        "logistic_probe": None if own.logistic_probe is None else own.logistic_probe._asdict(),
        "best_features": _probes(own.best_features),
        "behind_best": None if controls.behind_best is None else controls.behind_best._asdict(),
        "random_directions": None
        if random is None
        else random._asdict() | {"best_features": _probes(random.best_features)},
    }


def _probes(probes: Sequence[FeatureProbe]) -> list[dict[str, Any]]:
    return [{"features": probe.features, "held_out": probe.held_out._asdict()} for probe in probes]
