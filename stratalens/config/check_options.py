"""The options of `check`, with their defaults and their help."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stratalens.config.options import RunConfig
from stratalens.config.result_options import as_words, require_no_zero_byte
from stratalens.config.text_config import MAX_COUNT


class CheckConfig(BaseModel):
    """Check whether SAEs belong to a model, and if not, where they belong.

    Exits with 0 if all fit, 1 if one does not, 2 if one cannot be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    base_model: str | None = None
    """The model: a local directory or a Hub id. Default: the embedded SmolLM2-135M-Instruct."""
    revision: str | None = None
    """Revision (branch, tag or commit) of a base model on the Hub."""
    sae_model: str | None = None
    """The SAEs, as analyze reads them. Default: those shipped for the embedded model."""
    sae_pick: tuple[str, ...] = ()
    """Which SAEs, where several fit a layer, as in analyze: globs such as `width_16k`, and `l0=70` for the nearest
    L0."""
    sae_revision: str | None = None
    """Revision (branch, tag or commit) of SAEs on the Hub."""
    sae_format: str | None = None
    """Format of the SAEs, such as saelens; docs/formats.md lists them. Default: what their files look like."""
    sae_activation: str | None = None
    """Activation of SAEs whose files do not say it: relu, topk:32, groupmax:32, jumprelu or jumprelu:0.05."""
    layers: tuple[str, ...] = ()
    """Layers to check, such as `4 10-12 16`, or `all`. Default: as in analyze."""
    sites: tuple[str, ...] = ()
    """Sites of the layers to check, such as `resid mlp`. Default: as in analyze."""
    reference_model: str | None = None
    """Another model to compare with, such as the one that was fine-tuned: how far FVU and L0 moved from there."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the models. It runs with all your permissions, so read it first."""
    data: tuple[str, ...] = ()
    """Texts to read: files, directories, globs, addresses or datasets, as analyze reads them. Default: built-in
    financial and general texts."""
    text_column: tuple[str, ...] = ("text",)
    """Columns that hold the text in json, jsonl, csv and parquet files."""
    max_documents: int = Field(64, ge=1, le=4096)
    """Use at most this many documents, chosen by hash; of each the first passage."""
    max_length: int = Field(256, ge=16, le=131_072)
    """Longest passage in tokens."""
    min_length: int = Field(8, ge=2, le=MAX_COUNT)
    """Skip documents of fewer tokens."""
    no_loss: bool = False
    """Leave out the cross-entropy, for which the whole model with its head runs three times for each SAE."""
    output_dir: str | None = None
    """Directory for check.json, which holds all numbers. Default: nothing is written."""
    quiet: bool = False
    """Print nothing but errors."""
    device: str = "auto"
    """Where the model runs: `auto` takes the first available of cuda, mps and cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the model. `auto`: bfloat16 where the hardware multiplies it natively."""
    load_in: Literal["8bit", "4bit"] | None = None
    """Quantise the blocks of the model as they are loaded, by bitsandbytes."""
    memory_gb: float | None = Field(None, gt=0)
    """Gigabytes of memory that model and SAEs may take. Default: 90% of what is free."""
    batch_tokens: int | Literal["auto"] = "auto"
    """Tokens per batch, padding included. `auto`: 16384 on a GPU of 24 GB or more, 4096 on another, 2048 on the
    CPU."""

    @field_validator("data", "text_column", "layers", "sites", "sae_pick", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return tuple(as_words(value))

    @model_validator(mode="after")
    def _check_names(self) -> "CheckConfig":
        if "" in (*self.data, self.output_dir, self.reference_model):
            raise ValueError("a path is empty; leave the option out instead")
        require_no_zero_byte([*self.data, self.output_dir, self.reference_model])
        self.run_config()
        return self

    def run_config(self, **other: object) -> RunConfig:
        """The options of a run with this model and these SAEs; those that are given take the place of its own.

        Raises:
            ValueError: one is wrong.
        """
        shared = RunConfig.model_fields.keys() & type(self).model_fields.keys() - {"max_documents", "output_dir"}
        return RunConfig.model_validate({name: getattr(self, name) for name in shared} | other)
