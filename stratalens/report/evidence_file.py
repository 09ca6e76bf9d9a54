"""`evidence.json`: what fires each reported feature of a layer, written for people and programs, and read back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError, model_validator

from stratalens.corpus import Half
from stratalens.corpus.populations import side_name
from stratalens.evidence.examples import Example
from stratalens.evidence.logit_lens import FeatureLens, TokenLogit
from stratalens.evidence.top_tokens import TopToken
from stratalens.files.damaged import damaged
from stratalens.files.regular import named_when_out_of_memory, read_regular
from stratalens.labels import FeatureReport
from stratalens.report.formats import plain_number

EVIDENCE_FILE = "evidence.json"
MAX_EVIDENCE_BYTES = 2**30
"""A larger file is refused; a feature with all its examples takes about 80 KB."""
MAX_NUMBER = 1e100
"""Larger numbers in evidence and tables are refused: none comes of 32-bit activations, and sums of them overflow."""
ACTIVATION_DIGITS = 4
"""Significant digits of an activation in the file."""


class _FirstError(FailFast):
    """Stop at the first wrong item of a list."""

    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]  # so that the list may be optional


Item = TypeVar("Item")
ItemList = Annotated[list[Item], _FirstError()]
"""A list whose first wrong item is reported; reports of all items of a hostile list would fill the memory."""


class _StoredModel(BaseModel):
    """A part of the file, checked strictly when it is read."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class StoredPhrase(_StoredModel):
    """A phrase that a feature prefers."""

    phrase: str
    preference: float


class StoredConcept(_StoredModel):
    """A concept that a feature prefers."""

    concept: str
    preference: float


class StoredExample(_StoredModel):
    """A passage shown for a feature, with the activation on each token."""

    kind: str
    side: str
    half: str
    quantile: float | None = None
    activation: float
    tokens: ItemList[str]
    activations: ItemList[float]

    @model_validator(mode="after")
    def _one_activation_per_token(self) -> "StoredExample":
        if len(self.tokens) != len(self.activations):
            raise ValueError("an example does not have as many activations as tokens")
        return self


class StoredEvidence(_StoredModel):
    """The evidence of one feature, as read from its file."""

    feature_number: int
    top_tokens: ItemList[TopToken]
    phrases: ItemList[StoredPhrase]
    concepts: ItemList[StoredConcept]
    promoted: ItemList[TokenLogit] | None
    suppressed: ItemList[TokenLogit] | None
    examples: ItemList[StoredExample]

    @classmethod
    def of(cls, report: FeatureReport, domain: str) -> "StoredEvidence":
        """The evidence of a feature, in the numbers that the file has."""
        lens = report.lens
        return cls(
            feature_number=report.feature,
            top_tokens=[_rounded(token) for token in report.top_tokens],
            phrases=[StoredPhrase(phrase=name, preference=_number(score)) for name, score in report.support.phrases],
            concepts=[
                StoredConcept(concept=name, preference=_number(score)) for name, score in report.support.concepts
            ],
            promoted=None if lens is None else [_rounded(token) for token in lens.promoted],
            suppressed=None if lens is None else [_rounded(token) for token in lens.suppressed],
            examples=[_stored_example(example, domain) for example in report.examples],
        )

    @model_validator(mode="after")
    def _numbers_of_a_run(self) -> "StoredEvidence":
        numbers = [
            *(number for token in self.top_tokens for number in (token.share, token.background)),
            *(stored.preference for stored in (*self.phrases, *self.concepts)),
            *(number for token in (*(self.promoted or ()), *(self.suppressed or ())) for number in token[1:]),
            *(number for example in self.examples for number in (example.activation, *example.activations)),
        ]
        if max(map(abs, numbers), default=0) > MAX_NUMBER:
            raise ValueError("a number is larger than any that a run writes")
        return self


def _stored_example(example: Example, domain: str) -> StoredExample:
    return StoredExample(
        kind=example.choice.kind,
        side=side_name(domain, example.side),
        half=Half(example.half).name.lower(),
        quantile=example.choice.quantile,
        activation=example.choice.activation,
        tokens=example.tokens,
        activations=[float(f"{value:.{ACTIVATION_DIGITS}g}") for value in example.activations],
    )


def _number(value: float) -> float:
    """A number as JSON files have it."""
    return float(plain_number(value))


TokenRow = TypeVar("TokenRow", TopToken, TokenLogit)


def _rounded(token: TokenRow) -> TokenRow:
    return token._make(value if isinstance(value, str) else _number(value) for value in token)


def write_evidence_file(
    features: Sequence[StoredEvidence], path: Path, *, domain: str, layer: int, hookpoint: str
) -> None:
    """Write the evidence of one layer as JSON, one feature per line, so that tools such as grep can read it."""
    head = json.dumps({"layer": layer, "hookpoint": hookpoint, "domain": domain}, ensure_ascii=False)[:-1]
    lines = [json.dumps(_as_json(feature), ensure_ascii=False, allow_nan=False) for feature in features]
    path.write_text(f'{head}, "features": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def _as_json(stored: StoredEvidence) -> dict[str, object]:
    tokens = {
        name: None if own is None else [token._asdict() for token in own]
        for name, own in (
            ("top_tokens", stored.top_tokens),
            ("promoted", stored.promoted),
            ("suppressed", stored.suppressed),
        )
    }
    return stored.model_dump() | tokens


class _StoredFile(_StoredModel):
    features: ItemList[StoredEvidence]


def read_evidence_file(path: Path) -> dict[int, StoredEvidence]:
    """Read a file that `write_evidence_file` wrote: feature -> its evidence.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        content = read_regular(path, MAX_EVIDENCE_BYTES)
        with named_when_out_of_memory(path):
            return {stored.feature_number: stored for stored in _StoredFile.model_validate_json(content).features}
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except OSError as error:
        raise damaged(path, error) from None


def read_lenses(path: Path, features: Sequence[int]) -> list[FeatureLens] | None:
    """Read the logit lenses of some features from a file that `write_evidence_file` wrote; None if it has no lenses.

    Raises:
        ConfigError: the file is missing or damaged, or lacks one of the features.
    """
    stored = read_evidence_file(path)
    lenses = []
    for feature in features:
        if feature not in stored:
            raise damaged(path, f"no evidence on feature {feature}")
        promoted, suppressed = stored[feature].promoted, stored[feature].suppressed
        if promoted is None or suppressed is None:
            return None
        lenses.append(FeatureLens(promoted, suppressed))
    return lenses
