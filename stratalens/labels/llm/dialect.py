"""The OpenAI protocol: bodies of answers, and which parts of a request a server accepts, as servers differ."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, field_validator

MAX_TOKENS_USED = 2**31 - 1
"""By one request; a server that reports more, or less than none, is taken to report nothing."""


class AnswerMessage(BaseModel):
    """The message of an answer."""

    content: str | None = None


class Choice(BaseModel):
    """One answer of several."""

    message: AnswerMessage
    finish_reason: str | None = None


class TokenUsage(BaseModel):
    """Tokens that a request used."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @field_validator("prompt_tokens", "completion_tokens")
    @classmethod
    def _possible(cls, tokens: int | None) -> int | None:
        return tokens if tokens is not None and 0 <= tokens <= MAX_TOKENS_USED else None


class Completion(BaseModel):
    """The body of an answer."""

    choices: list[Choice]
    usage: TokenUsage | None = None


class ServedModel(BaseModel):
    """A model that a server offers."""

    id: str


class ServedModels(BaseModel):
    """The models that a server offers."""

    data: list[ServedModel]


class Dialect(NamedTuple):
    """Which optional parts of a request the server accepts; all of them, until it refuses one."""

    structured: str | None = "json_schema"
    """Type of `response_format`; None to send none."""
    limit: str = "max_tokens"
    """Name of the parameter that limits the tokens of an answer."""
    seed: bool = True
    temperature: bool = True

    def parameters(self, max_tokens: int, schema: Mapping[str, object] | None) -> dict[str, object]:
        """Return the optional parts of a request."""
        chosen: dict[str, object] = {self.limit: max_tokens}
        if self.seed:
            chosen["seed"] = 0
        if self.temperature:
            chosen["temperature"] = 0
        if schema is not None and self.structured == "json_schema":
            described = {"name": "answer", "strict": True, "schema": schema}
            chosen["response_format"] = {"type": "json_schema", "json_schema": described}
        elif schema is not None and self.structured is not None:
            chosen["response_format"] = {"type": self.structured}
        return chosen


def relax_dialect(dialect: Dialect, refusal: str, has_schema: bool) -> Dialect | None:
    """Return what to try after a refusal: without the parameter it names, else with a weaker `response_format`.

    Returns:
        None if there is nothing left to leave out.
    """
    if dialect.limit == "max_tokens" and "max_completion_tokens" in refusal:
        return dialect._replace(limit="max_completion_tokens")
    for name in ("seed", "temperature"):
        if getattr(dialect, name) and re.search(rf"\b{name}\b", refusal):
            return dialect._replace(**{name: False})
    if has_schema and dialect.structured is not None:
        return dialect._replace(structured="json_object" if dialect.structured == "json_schema" else None)
    return None
