"""The options of `validate`, with their defaults and their help."""

import re

from pydantic import Field, model_validator

from stratalens.config.result_options import require_device
from stratalens.config.text_config import TextConfig
from stratalens.files.result_names import VALIDATION_NAME


class ValidateConfig(TextConfig):
    """Score the reported features of a finished result on texts from other sources.

    All their documents estimate; nothing is selected on them.
    Documents that were in the run are dropped and counted.
    The model is loaded only if these texts were not yet read with it.
    """

    name: str = ""
    """Name of these texts, such as newswire: small letters, digits, _ and -. A name stands for the same texts for
    good."""
    domain_data: tuple[str, ...] = ()
    """Domain texts: files, directories, globs, addresses or datasets, as analyze reads them."""
    general_data: tuple[str, ...] = ()
    """General texts to compare with, in the same forms as --domain_data."""
    kind_column: str | None = None
    """Column that names the kind of a document, such as news or letter. Where both sides have kinds, documents are
    compared within their kind."""
    device: str | None = None
    """Where the model runs: auto, cuda, mps or cpu. Default: as in the run."""
    memory_gb: float | None = Field(None, gt=0)
    """Gigabytes of memory that model, SAEs and statistics may take. Default: 90% of what is free."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the base model. It runs with all your permissions, so read it first."""
    allow_fetch: bool = False
    """Fetch what the result names and is not on this machine: its model and SAEs, and its texts, to drop documents that
    were in the run. What you name yourself needs no permission."""
    quiet: bool = False
    """Print nothing but errors."""

    @model_validator(mode="after")
    def _check_validation(self) -> "ValidateConfig":
        if not self.name:
            raise ValueError("name: give these texts a name, such as --name newswire")
        if re.fullmatch(VALIDATION_NAME, self.name) is None:
            raise ValueError(
                f"name: `{self.name[:60]}` cannot name files; use up to 40 small letters, digits, _ and -, the first "
                "a letter or a digit"
            )
        if self.device is not None:
            require_device(self.device)
        if not self.pair and not (self.domain_data and self.general_data):
            raise ValueError("name the texts of both sides with --domain_data and --general_data, or with --pair")
        return self
