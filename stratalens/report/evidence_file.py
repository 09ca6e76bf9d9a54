"""`evidence.json`: all that is known of what fires each reported feature of a layer, for people and programs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from stratalens.corpus import Half
from stratalens.evidence.examples import Example
from stratalens.evidence.logit_lens import FeatureLens, TokenLogit
from stratalens.evidence.top_tokens import TopToken
from stratalens.files.damaged import damaged
from stratalens.labels.evidence_labels import Support
from stratalens.report.formats import json_value

EVIDENCE_FILE = "evidence.json"
ACTIVATION_DIGITS = 4


class FeatureEvidence(NamedTuple):
    """Evidence of one feature, ready to be written."""

    feature: int
    top_tokens: list[TopToken]
    support: Support
    lens: FeatureLens | None
    examples: list[Example]
    """Empty where corpus text is to be kept out of files."""


def write_evidence_file(
    features: Sequence[FeatureEvidence], path: Path, *, domain: str, layer: int, hookpoint: str
) -> None:
    """Write the evidence of one layer, one feature a line, so that the file stays readable by line tools."""
    head = json.dumps({"layer": layer, "hookpoint": hookpoint, "domain": domain}, ensure_ascii=False)[:-1]
    lines = [json.dumps(_feature(one, domain), ensure_ascii=False, allow_nan=False) for one in features]
    path.write_text(f'{head}, "features": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def _feature(one: FeatureEvidence, domain: str) -> dict[str, object]:
    known = {
        "feature_number": one.feature,
        "top_tokens": [token._asdict() for token in one.top_tokens],
        "phrases": [{"phrase": name, "preference": score} for name, score in one.support.phrases],
        "concepts": [{"concept": name, "preference": score} for name, score in one.support.concepts],
        "promoted": [token._asdict() for token in one.lens.promoted] if one.lens else None,
        "suppressed": [token._asdict() for token in one.lens.suppressed] if one.lens else None,
    }
    examples = [_example(example, domain) for example in one.examples]
    return {name: json_value(value) for name, value in known.items()} | {"examples": examples}


def _example(example: Example, domain: str) -> Mapping[str, object]:
    return {
        "kind": example.choice.kind,
        "side": domain if example.side == 0 else "general",
        "half": Half(example.half).name.lower(),
        "quantile": example.choice.quantile,
        "activation": example.choice.activation,
        "tokens": example.tokens,
        "activations": [float(f"{value:.{ACTIVATION_DIGITS}g}") for value in example.activations],
    }


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class StoredPhrase(_Stored):
    """A phrase that a feature prefers."""

    phrase: str
    preference: float


class StoredConcept(_Stored):
    """A concept that a feature prefers."""

    concept: str
    preference: float


class StoredExample(_Stored):
    """A passage shown for a feature."""

    kind: str
    side: str
    half: str
    activation: float
    tokens: list[str]
    activations: list[float]

    @model_validator(mode="after")
    def _one_activation_a_token(self) -> "StoredExample":
        if len(self.tokens) != len(self.activations):
            raise ValueError("tokens and activations of an example differ in number")
        return self


class StoredEvidence(_Stored):
    """The evidence of one feature as its file holds it."""

    feature_number: int
    top_tokens: list[TopToken]
    phrases: list[StoredPhrase]
    concepts: list[StoredConcept]
    promoted: list[TokenLogit] | None
    suppressed: list[TokenLogit] | None
    examples: list[StoredExample]


class _StoredFile(_Stored):
    features: list[StoredEvidence]


def read_evidence_file(path: Path) -> dict[int, StoredEvidence]:
    """Feature -> what a file that `write_evidence_file` wrote says of it.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        return {one.feature_number: one for one in _StoredFile.model_validate_json(path.read_bytes()).features}
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except OSError as error:
        raise damaged(path, error.strerror) from None


def read_lenses(path: Path, features: Sequence[int]) -> list[FeatureLens] | None:
    """The lenses of features, of a file that `write_evidence_file` wrote; None where it holds none.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    stored = read_evidence_file(path)
    lenses = []
    for feature in features:
        if feature not in stored:
            raise damaged(path, f"nothing on feature {feature}")
        promoted, suppressed = stored[feature].promoted, stored[feature].suppressed
        if promoted is None or suppressed is None:
            return None
        lenses.append(FeatureLens(promoted, suppressed))
    return lenses
