"""The options of `token_test`, with their defaults and their help."""

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stratalens.config.result_options import as_words, require_device, require_no_zero_byte


class TokenTestConfig(BaseModel):
    """Test whether the tokens of a feature alone switch it on in unrelated text.

    Reads the text and, where something was not yet read, the model of the run.
    A test that was stopped continues where it was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    lexicon: tuple[str, ...] = ()
    """YAML files of concepts and their terms, which are masked. Default: as in the run."""
    senses: tuple[str, ...] = ()
    """JSON lines files of sentence pairs in which a word of the domain has another sense. Default: as in the run."""
    device: str | None = None
    """Where the model runs: auto, cuda, mps or cpu. Default: as in the run."""
    memory_gb: float | None = Field(None, gt=0)
    """Gigabytes of memory that model and SAEs may take. Default: 90% of what is free."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the base model. It runs with all your permissions, so read it first."""
    allow_fetch: bool = False
    """Fetch the text and the model that the result names, where they are not on this machine."""
    quiet: bool = False
    """Print nothing but errors."""

    @field_validator("lexicon", "senses", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return tuple(as_words(value))

    @model_validator(mode="after")
    def _check_names(self) -> "TokenTestConfig":
        if "" in (*self.lexicon, *self.senses):
            raise ValueError("a path is empty; leave the option out instead")
        require_no_zero_byte([*self.lexicon, *self.senses])
        if self.device is not None:
            require_device(self.device)
        return self
