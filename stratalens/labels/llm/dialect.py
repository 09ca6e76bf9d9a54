"""The OpenAI protocol as servers really speak it: bodies of answers, and what each server takes of a request."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel


class Turn(BaseModel):
    """An answer as a turn of the chat."""

    content: str | None = None


class Choice(BaseModel):
    """One answer of several."""

    message: Turn
    finish_reason: str | None = None


class Tokens(BaseModel):
    """What a request took."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """The body of an answer."""

    choices: list[Choice]
    usage: Tokens | None = None


class Model(BaseModel):
    """A model that a server offers."""

    id: str


class Models(BaseModel):
    """The models that a server offers."""

    data: list[Model]


class Dialect(NamedTuple):
    """Which optional parts of a request the server takes; the most that may be hoped for until it refuses."""

    structured: str | None = "json_schema"
    limit: str = "max_tokens"
    seed: bool = True
    temperature: bool = True

    def parameters(self, max_tokens: int, schema: Mapping[str, object] | None) -> dict[str, object]:
        """The optional parts of a request."""
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


def milder(dialect: Dialect, refusal: str, has_schema: bool) -> Dialect | None:
    """What to try after a refusal: without what it names, else with less structure; None when nothing is left."""
    if dialect.limit == "max_tokens" and "max_completion_tokens" in refusal:
        return dialect._replace(limit="max_completion_tokens")
    for name in ("seed", "temperature"):
        if getattr(dialect, name) and re.search(rf"\b{name}\b", refusal):
            return dialect._replace(**{name: False})
    if has_schema and dialect.structured is not None:
        return dialect._replace(structured="json_object" if dialect.structured == "json_schema" else None)
    return None
