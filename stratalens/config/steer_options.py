"""The options of `steer`, with their defaults and their help."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stratalens.config.result_options import as_words, require_device, require_no_zero_byte
from stratalens.errors import ConfigError
from stratalens.hookpoint import NAME_PATTERN, Hookpoint

MAX_WEIGHT = 1e6
FEATURE = re.compile(rf"(?P<place>{NAME_PATTERN})/(?P<feature>\d{{1,8}})(?::(?P<weight>[-+]?[0-9.eE+-]{{1,20}}))?")
"""A feature with its weight, such as `28/10`, `16_mlp/163` or `22/6:-0.5`."""
DEFAULT_TEMPERATURE = 1.0
EXPORT_SUFFIXES = (".safetensors", ".gguf")
"""Of the files that a control vector is written to; the suffix names the format."""


class WeightedFeature(NamedTuple):
    """A feature that steers, with what it is multiplied by."""

    hookpoint: Hookpoint
    """Where its SAE reads."""
    feature: int
    weight: float = 1.0

    def __str__(self) -> str:
        return f"{self.hookpoint}/{self.feature}"


def parse_features(words: Sequence[str]) -> list[WeightedFeature]:
    """Parse features with weights.

    Raises:
        ConfigError: there are none, one is not understood, or one is named twice.
    """
    if not words:
        raise ConfigError("name a feature after the result directory, such as 28/10, or several: 28/10:1 22/6:-0.5")
    features = [_parsed(word) for word in words]
    for own in features:
        if sum(own[:2] == other[:2] for other in features) > 1:
            raise ConfigError(f"feature {own} is named twice; give it once, with the sum of the weights")
    return features


def _parsed(word: str) -> WeightedFeature:
    match = FEATURE.fullmatch(word)
    try:
        weight = float(match["weight"] or 1) if match else math.nan
    except ValueError:
        weight = math.nan
    if match is None or not abs(weight) <= MAX_WEIGHT:
        raise ConfigError(
            f"`{word}` is no feature; write layer and number such as 28/10, with a site such as 16_mlp/163, with a "
            "weight such as 22/6:-0.5"
        )
    return WeightedFeature(Hookpoint.parse(match["place"]), int(match["feature"]), weight)


class SteerConfig(BaseModel):
    """Add features to what the model computes, and see what it writes.

    With --export, write what is added as a control vector.
    A FEATURE is 28/10 or 16_mlp/163; with weights, 28/10:1 22/6:-0.5.
    Loads the whole model of the run, and reads no text but the prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    strength: float = Field(4.0, ge=-1e6, le=1e6)
    """How much is added at each position, in multiples of a feature's mean activation when active; below 0, it is
    taken away."""
    prompt: tuple[str, ...] = ()
    """Texts to continue, plain and steered. They are read as they stand, without a chat template."""
    max_new_tokens: int = Field(60, ge=1, le=100_000)
    """Most tokens of a continuation."""
    seed: int | None = Field(None, ge=0, lt=2**63)
    """Draw tokens by this seed instead of taking the most probable one each time."""
    temperature: float | None = Field(None, gt=0, le=1000)
    """What logits are divided by before tokens are drawn. Default: 1."""
    export: str | None = None
    """File for the control vector: .safetensors with where it comes from, or .gguf for llama.cpp."""
    overwrite: bool = False
    """Replace the file of --export if it exists."""
    device: str | None = None
    """Where the model runs: auto, cuda, mps or cpu. Default: as in the run."""
    memory_gb: float | None = Field(None, gt=0)
    """Gigabytes of memory that model and SAEs may take. Default: 90% of what is free."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the base model. It runs with all your permissions, so read it first."""
    allow_fetch: bool = False
    """Fetch the model and the SAEs that the result names, where they are not on this machine."""
    quiet: bool = False
    """Print nothing but errors, and the continuations."""

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompts(cls, value: object) -> object:
        return tuple(as_words(value))

    @field_validator("export", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _check(self) -> "SteerConfig":
        if not self.prompt and self.export is None:
            raise ValueError("give a text to continue with --prompt TEXT, or a file with --export FILE")
        if "" in self.prompt:
            raise ValueError("a prompt is empty; give at least one word to continue")
        if self.temperature is not None and self.seed is None:
            raise ValueError("temperature was given without seed; tokens are drawn only with --seed N")
        if self.export is not None:
            require_no_zero_byte([self.export])
            if Path(self.export).suffix not in EXPORT_SUFFIXES:
                raise ValueError(f"export: `{self.export}` names no format; end it in {' or '.join(EXPORT_SUFFIXES)}")
        if self.overwrite and self.export is None:
            raise ValueError("overwrite was given without export; nothing else is written")
        if self.device is not None:
            require_device(self.device)
        return self
