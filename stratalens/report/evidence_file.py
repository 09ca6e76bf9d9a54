"""`evidence.json`: what fires each reported feature of a layer, written for people and programs, and read back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError, model_validator

from stratalens.corpus import Half
from stratalens.evidence.examples import Example
from stratalens.evidence.logit_lens import FeatureLens, TokenLogit
from stratalens.evidence.top_tokens import TopToken
from stratalens.files.damaged import damaged
from stratalens.files.regular import named_when_out_of_memory, read_regular
from stratalens.labels.evidence_labels import Support
from stratalens.report.formats import json_value

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


class FeatureEvidence(NamedTuple):
    """The evidence of one feature, ready to be written."""

    feature: int
    top_tokens: list[TopToken]
    support: Support
    lens: FeatureLens | None
    examples: list[Example]
    """Empty if corpus text must stay out of the files (`--no_examples`)."""


def write_evidence_file(
    features: Sequence[FeatureEvidence], path: Path, *, domain: str, layer: int, hookpoint: str
) -> None:
    """Write the evidence of one layer as JSON, one feature per line, so that tools such as grep can read it."""
    head = json.dumps({"layer": layer, "hookpoint": hookpoint, "domain": domain}, ensure_ascii=False)[:-1]
    lines = [json.dumps(_feature_json(feature, domain), ensure_ascii=False, allow_nan=False) for feature in features]
    path.write_text(f'{head}, "features": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def _feature_json(evidence: FeatureEvidence, domain: str) -> dict[str, object]:
    fields = {
        "feature_number": evidence.feature,
        "top_tokens": [token._asdict() for token in evidence.top_tokens],
        "phrases": [{"phrase": name, "preference": score} for name, score in evidence.support.phrases],
        "concepts": [{"concept": name, "preference": score} for name, score in evidence.support.concepts],
        "promoted": [token._asdict() for token in evidence.lens.promoted] if evidence.lens else None,
        "suppressed": [token._asdict() for token in evidence.lens.suppressed] if evidence.lens else None,
    }
    examples = [_example_json(example, domain) for example in evidence.examples]
    return {name: json_value(value) for name, value in fields.items()} | {"examples": examples}


def _example_json(example: Example, domain: str) -> Mapping[str, object]:
    return {
        "kind": example.choice.kind,
        "side": domain if example.side == 0 else "general",
        "half": Half(example.half).name.lower(),
        "quantile": example.choice.quantile,
        "activation": example.choice.activation,
        "tokens": example.tokens,
        "activations": [float(f"{value:.{ACTIVATION_DIGITS}g}") for value in example.activations],
    }


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
