"""The options of `effect`, with their defaults and their help."""

import re

from pydantic import Field, field_validator, model_validator

from stratalens.config.result_options import as_words, require_device, require_no_zero_byte
from stratalens.config.text_config import TextConfig
from stratalens.files.result_names import VALIDATION_NAME

MAX_CONTROL_SETS = 1000
MAX_STEPS = 256
BUILT_IN_TASKS = "built-in"
"""In place of a file: the task items that ship with the domain."""


class EffectConfig(TextConfig):
    """Measure what the model loses without features: in its next-token loss.

    Reads documents of the run that chose no feature, with the whole model.
    Texts of other sources can take their place.
    A measurement that was stopped continues where it was.
    """

    ablate: int = Field(10, ge=0, le=1000)
    """Features of each layer that are removed one by one, the best of the list first."""
    documents: int = Field(200, ge=3, le=100_000)
    """Most documents of a side, of which at most four passages each are read."""
    control_documents: int = Field(20, ge=3, le=10_000)
    """Documents of a side on which controls are measured."""
    control_sets: int = Field(20, ge=1, le=MAX_CONTROL_SETS)
    """Draws of random directions, and sets of other latents, in the place of a layer's confirmed features. From 199 on
    their rank is a p-value."""
    ig_steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Attribute by integrated gradients with so many steps. Default: by the gradient, which takes one pass for all
    layers."""
    task: tuple[str, ...] = ()
    """JSON lines files of task items, each with prompt, correct and wrong; `built-in` for those that ship with the
    domain."""
    name: str = ""
    """Name of texts of other sources, such as newswire: small letters, digits, _ and -. A name stands for the same
    texts for good."""
    domain_data: tuple[str, ...] = ()
    """Domain texts of other sources, as analyze reads them. Default: those of the run that chose no feature."""
    general_data: tuple[str, ...] = ()
    """General texts to compare with, in the same forms as --domain_data."""
    lexicon: tuple[str, ...] = ()
    """YAML files of concepts and their terms, whose tokens are told apart. Default: as in the run."""
    device: str | None = None
    """Where the model runs: auto, cuda, mps or cpu. Default: as in the run."""
    memory_gb: float | None = Field(None, gt=0)
    """Gigabytes of memory that model and SAEs may take. Default: 90% of what is free."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the base model. It runs with all your permissions, so read it first."""
    allow_fetch: bool = False
    """Fetch what the result names and is not on this machine: its text, model and SAEs."""
    quiet: bool = False
    """Print nothing but errors."""

    @field_validator("lexicon", "task", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return tuple(as_words(value))

    @model_validator(mode="after")
    def _check_effect(self) -> "EffectConfig":
        if "" in (*self.lexicon, *self.task):
            raise ValueError("a path is empty; leave the option out instead")
        require_no_zero_byte([*self.lexicon, *self.task])
        if self.device is not None:
            require_device(self.device)
        other = bool(self.pair or self.domain_data or self.general_data)
        if other and not self.pair and not (self.domain_data and self.general_data):
            raise ValueError("name the texts of both sides with --domain_data and --general_data, or with --pair")
        if other and re.fullmatch(VALIDATION_NAME, self.name) is None:
            raise ValueError("name: give these texts a name of small letters, digits, _ and -, such as --name newswire")
        if self.name and not other:
            raise ValueError("name: it names texts of other sources; give them with --domain_data and --general_data")
        return self

    @property
    def on_other_text(self) -> bool:
        """Whether texts of other sources are read."""
        return bool(self.name)
