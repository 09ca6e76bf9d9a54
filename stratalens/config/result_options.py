"""The options of the commands on a finished result, with their defaults and their help."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

RankBy = Literal[
    "specialization",
    "auroc",
    "transfer",
    "hedges_g",
    "domain_share",
    "domain_score",
    "log_ratio",
    "firing_rate_difference",
]
RANK_METRICS: tuple[str, ...] = get_args(RankBy)


class LabelConfig(BaseModel):
    """Label the features of a finished result again, without a new harvest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    labeling_model: str | None = None
    """Language model that writes the labels: a local directory or a Hub id, run on this machine, or the name of a model
    at --labeling_endpoint. Default: none; labels are made from the evidence alone."""
    labeling_endpoint: str | None = None
    """Address of an OpenAI-compatible server that runs the labelling model, such as http://localhost:8000/v1. It gets
    the API key in STRATALENS_API_KEY; OPENAI_API_KEY is sent only to https://api.openai.com."""
    labeling_concurrency: int = Field(8, ge=1, le=256)
    """Maximum number of requests that are sent at the same time."""
    labeling_timeout: float = Field(180, gt=0, le=3600)
    """Seconds to wait for one answer, its reasoning included."""
    labeling_max_tokens: int = Field(4096, ge=16, le=131_072)
    """Tokens that an answer of the labelling model may have, its reasoning included. A truncated answer is asked for
    again with two and four times as many."""
    prompts: str | None = None
    """Directory with templates that replace the built-in prompts of the same name."""
    lexicon: tuple[str, ...] = ()
    """YAML files of concepts and their terms, used instead of the built-in ones of the domain."""
    features: str | None = None
    """File that lists (layer, latent) pairs to report instead of the best of each layer: a CSV with the columns
    layer and feature_number, or lines such as `16 163`."""
    csv_bom: bool = False
    """Begin every CSV file of the result with a byte order mark, by which Excel knows that it is UTF-8. A result
    that was written so stays so."""
    no_examples: bool = False
    """Keep every sentence of the corpus out of files and requests; labels are then made from tokens alone."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the base model. It runs with all your permissions, so read it first. No file
    turns this on."""
    allow_fetch: bool = False
    """Fetch what the `run.json` of an earlier run names and is not on this machine: texts at addresses, models and SAEs
    on the Hub. What you name yourself needs no permission."""
    quiet: bool = False
    """Print nothing but errors, and where text is sent."""

    @field_validator("lexicon", mode="before")
    @classmethod
    def _lexicon_paths(cls, value: object) -> object:
        return tuple(as_words(value))

    @model_validator(mode="after")
    def _check_labels(self) -> "LabelConfig":
        names = [self.labeling_model, self.labeling_endpoint, self.prompts, self.features, *self.lexicon]
        if "" in names:
            raise ValueError("a path or an address is empty; leave the option out instead")
        require_no_zero_byte(names)
        return self

    @field_validator("labeling_model", "prompts", "features", mode="before")
    @classmethod
    def _label_path_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value


class ReportConfig(BaseModel):
    """Write the page and the figures of a finished result again."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    quiet: bool = False
    """Print nothing but errors."""


class RankConfig(BaseModel):
    """Rank the features of a finished result again from its harvest, in seconds.

    Needs neither the model nor the text. Omitted options keep their values.
    Run `stratalens label` to label features that were not reported before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    top_n: int | None = Field(None, ge=1)
    """Number of features to report per layer."""
    rank_by: RankBy | None = None
    """Statistic by which the features of a layer are ordered."""
    compare_layers_by: Literal["normalised", "raw"] | None = None
    """How features of different layers, and layers, are compared: by specialization as a share of the norm of the
    residual stream, or by raw specialization."""
    min_specialization: float | None = Field(None, ge=0)
    """Minimum specialization, in raw units, of features in the file of the best features across layers."""
    top_features_n: int | None = Field(None, ge=1)
    """Maximum number of features in the file of the best features across layers."""
    csv_bom: bool = False
    """Begin every CSV file of the result with a byte order mark, by which Excel knows that it is UTF-8. A result
    that was written so stays so."""
    allow_fetch: bool = False
    """Fetch the text and the model that the result names, where they are not on this machine. They are needed only for
    a result without examples."""
    quiet: bool = False
    """Print nothing but errors."""


def require_device(device: str) -> None:
    """Check the name of a device.

    Raises:
        ValueError: there is none of this name.
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?", device) is None:  # torch takes 256 for 0
        raise ValueError(f"device: `{device}` is unknown; expected auto, cpu, mps, cuda or cuda:N")


def require_no_zero_byte(names: Iterable[str | None]) -> None:
    """Check names of files and addresses.

    Raises:
        ValueError: one contains a zero byte.
    """
    for name in filter(None, names):
        if "\0" in name:
            raise ValueError("a path or an address contains a zero byte; remove it")


def as_words(value: object) -> list[object]:
    """Turn one or several values into words; values other than words, integers and paths are left for validation."""
    several = list(value) if isinstance(value, list | tuple | range) else [value]
    return [str(item) if isinstance(item, int | Path) and not isinstance(item, bool) else item for item in several]
