"""What `run.json` says of a run, as far as the page shows it, checked."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from stratalens.corpus.corpus import Side
from stratalens.report.run_record import HOW, side_name


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


Layer = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,4})$")]


class ModelFacts(_Part):
    """The language model."""

    name: str
    num_layers: int
    d_model: int


class SaeFacts(_Part):
    """The SAE of one layer."""

    hookpoint: str
    latents: int
    k: int | None


class SideFacts(_Part):
    """The documents of one side."""

    documents: int
    discovery_documents: int
    confirmation_documents: int
    kept_rows: int
    empty: int
    too_short: int
    duplicates: int
    on_both_sides: int
    beyond_max_documents: int


class Fit(_Part):
    """How well an SAE rebuilds one hookpoint."""

    hookpoint: str
    fvu: float | None
    mean_error_share: float | None
    l0: float | None


class Check(_Part):
    """The self-check of an SAE on its own hookpoint and those beside it."""

    own: Fit
    neighbours: list[Fit]
    problem: str


class RunFacts(_Part):
    """All of it."""

    domain: str
    created: str
    stratalens: str
    model: ModelFacts
    saes: dict[Layer, SaeFacts]
    split: bool
    sides: tuple[SideFacts, SideFacts]
    files: tuple[list[str], list[str]]
    max_length: int
    passages: int
    tokens: int
    self_check: dict[Layer, Check]
    warnings: list[str]
    settings: dict[str, Any]
    """Those that have a part in what came out."""

    @classmethod
    def of(cls, record: dict[str, Any], domain: str) -> "RunFacts":
        """Pick the facts out of the content of `run.json`.

        Raises:
            ValueError: something is missing or of another kind.
        """
        try:
            corpus = record["corpus"]
            names = [side_name(domain, side) for side in Side]
            values = {
                "domain": domain,
                "split": corpus["split"],
                "sides": tuple(corpus[name] for name in names),
                "files": tuple(corpus["files"][name] for name in names),
                "max_length": corpus["lengths"]["max_length"],
                "settings": {name: value for name, value in record["settings"].items() if name not in HOW},
            }
            given = ("created", "stratalens", "model", "saes", "passages", "tokens", "self_check", "warnings")
            return cls.model_validate(values | {name: record[name] for name in given})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"nothing on {error}") from None
