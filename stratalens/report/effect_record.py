"""The effects of removing features as `run.json` holds them."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, model_validator

from stratalens.effects.effect_scores import MAX_EFFECT_SIZE, OWN_TEXT
from stratalens.effects.feature_effects import EFFECT_VERDICTS, EffectVerdict
from stratalens.effects.layer_effects import LayerEffect
from stratalens.errors import counted
from stratalens.files.result_names import VALIDATION_NAME
from stratalens.hookpoint import NAME_PATTERN, Hookpoint
from stratalens.report.record_part import RecordPart

Count = Annotated[int, Field(ge=0)]
EffectPlace = Annotated[str, Field(pattern=rf"^{NAME_PATTERN}$")]
MAX_TASK_ROWS = 1_000
"""Rows of task effects of a layer."""
FIGURE_STEM = "layer_effects"


_OF_SEVERAL: Mapping[EffectVerdict, str] = {
    "moves the domain": "move the domain",
    "moves everything": "move everything",
    "no measurable effect": "without measurable effect",
    "undecided": "undecided",
}
"""Verdict -> what is said of several features that have it."""


def plain_fields(value: Any) -> Any:
    """A NamedTuple, and those inside it, as dictionaries."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain_fields(part) for name, part in value._asdict().items()}  # pyright: ignore[reportAttributeAccessIssue]
    return value


def numbers_in(value: Any) -> list[float]:
    """All numbers in a dictionary and those inside it."""
    if isinstance(value, Mapping):
        return [number for part in value.values() for number in numbers_in(part)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


StoredLayerEffect = Annotated[LayerEffect, PlainSerializer(plain_fields)]
TaskCell = bool | int | float | str | None


class EffectRecord(RecordPart):
    """What removing features did on one text. Losses in nats a token."""

    name: Annotated[str, Field(pattern=rf"^(?:{VALIDATION_NAME})?$")] = OWN_TEXT
    """Of the text: empty for the run's own confirmation documents."""
    created: str
    digest: str
    """Of everything that determines the numbers."""
    text_digest: str
    """Of all documents of the text that count."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Options that say which text was read and how."""
    domain_documents: Count
    general_documents: Count
    control_documents: Count
    """Of each side, on which controls are measured."""
    tokens: Count
    """Tokens of all that was read, now or before."""
    random_draws: Count
    """Random directions in place of each decoder row."""
    matched_sets: Count
    """Sets of other live latents for each layer."""
    noise_floor: Annotated[float, Field(ge=0)]
    """Mean absolute difference of the loss of a token between two batchings of the plain model."""
    dtype: str
    device: str
    ig_steps: Count = 0
    """Steps of integrated gradients; 0 for gradient x activation."""
    features: Count
    """Reported features that were ablated one by one."""
    verdicts: dict[EffectVerdict, Count]
    layers: dict[EffectPlace, StoredLayerEffect]
    """Hookpoint -> effect of removing its confirmed features together; those without any are missing."""
    removed: dict[EffectPlace, list[Count]] = Field(default_factory=dict)
    """Hookpoint -> features that were removed together."""
    attributed: list[EffectPlace]
    """Hookpoints whose live latents all have an attribution."""
    rank_correlation: float | None
    """Spearman's correlation of attribution and ablation, within the ablated features."""
    dense: dict[EffectPlace, list[Count]] = Field(default_factory=dict)
    """Hookpoint -> dense latents, which are set to their mean on general text instead of being removed."""
    tasks: dict[EffectPlace, Annotated[list[dict[str, TaskCell]], Field(max_length=MAX_TASK_ROWS)]] = Field(
        default_factory=dict
    )
    """Hookpoint -> rows of `task_effects.csv`; empty where no tasks were done."""
    seed: int
    notes: list[str]
    warnings: list[str]

    @model_validator(mode="after")
    def _fits(self) -> "EffectRecord":
        if sum(self.verdicts.values()) != self.features:
            raise ValueError("`verdicts` are not those of `features`")
        for effect in self.layers.values():
            if not all(math.isfinite(one) and abs(one) <= MAX_EFFECT_SIZE for one in numbers_in(plain_fields(effect))):
                raise ValueError("`layers` has a number that no effect is")
        return self

    @property
    def is_own_text(self) -> bool:
        """Whether the text is the run's own."""
        return self.name == OWN_TEXT

    @property
    def title(self) -> str:
        """What the text is called."""
        return "own text" if self.is_own_text else self.name

    @property
    def layer_effects(self) -> dict[Hookpoint, LayerEffect]:
        """Hookpoint -> effect of removing its confirmed features together."""
        return {Hookpoint.parse(place): effect for place, effect in self.layers.items()}

    def describe(self) -> str:
        """One sentence: how many features have each verdict."""
        where = "" if self.is_own_text else f" on {self.name}"
        if not self.features:
            return f"No feature was removed by itself{where}."
        told = ", ".join(f"{self.verdicts.get(verdict, 0):,} {_OF_SEVERAL[verdict]}" for verdict in EFFECT_VERDICTS)
        return f"Of {counted(self.features, 'feature')} removed one by one{where}: {told}."

    def file_name(self, stem: str, suffix: str) -> str:
        """Name of one of its files: `layer_effects.csv`, on another text `layer_effects_newswire.csv`."""
        return f"{stem}{'' if self.is_own_text else f'_{self.name}'}{suffix}"

    @property
    def attribution_files(self) -> dict[Hookpoint, str]:
        """Hookpoint -> name of the file of the attributions of its latents, relative to the result directory."""
        name = self.file_name("latent_attributions", ".parquet")
        return {Hookpoint.parse(place): f"layer_{place}/{name}" for place in self.attributed}

    @property
    def file_names(self) -> list[str]:
        """Names of its files, relative to the result directory, without the figure."""
        stems = ["layer_effects", "feature_effects", *(["task_effects"] if self.tasks else [])]
        return [*(self.file_name(stem, ".csv") for stem in stems), *self.attribution_files.values()]
