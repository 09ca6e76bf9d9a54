"""The OpenAI protocol: the models that a server offers, and which parts of a request it accepts, as servers differ."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel

MIN_ROOM = 128
"""Tokens for an answer below which a server is not asked with less room, when it refuses more."""
STREAM_ONLY = re.compile(
    r"(?=.*\bstream(ing|ed)?\b).*\b(only|must|requires?d?|needs?|true|enabled?|non|not supported|unsupported)\b",
    re.IGNORECASE | re.DOTALL,
)
"""A server refuses an answer in one piece. Nothing else was asked for, so any complaint about streams is this one."""
ROOM_REACHED = re.compile(r"limit was reached|higher max_(completion_)?tokens", re.IGNORECASE)
"""A server reports an answer that did not begin within its room as an error, as OpenAI does of models that reason."""
OTHER_LIMIT = re.compile(
    r"max_completion_tokens|\bmax_tokens\b.{0,60}(not supported|unsupported|not permitted|deprecated)"
    r"|(unsupported|unknown|unrecognized|unexpected).{0,60}\bmax_tokens\b",
    re.IGNORECASE | re.DOTALL,
)
"""A server wants the room for an answer under its newer name."""
ROOM_EXCEEDED = re.compile(
    r"context[ _](length|window|size)|prompt is too long"
    r"|max_(completion_|new_)?tokens\b.{0,80}"
    r"(too (large|high|big)|at most|exceed|less than|<=|maximum|valid range|should be|between)",
    re.IGNORECASE | re.DOTALL,
)
"""A server refuses a prompt and an answer that are together longer than the model's context, or so long an answer."""


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
    stream: bool = False
    """Whether to ask for a stream, for servers that give nothing else."""
    stream_options: bool = True
    """Whether to ask for the numbers of tokens at the end of a stream."""

    def parameters(self, max_tokens: int, schema: Mapping[str, object] | None) -> dict[str, object]:
        """Return the optional parts of a request."""
        chosen: dict[str, object] = {self.limit: max_tokens}
        if self.seed:
            chosen["seed"] = 0
        if self.temperature:
            chosen["temperature"] = 0
        if self.stream:  # as a further field: the answer is still read as a whole, within its limits
            usage = {"stream_options": {"include_usage": True}} if self.stream_options else {}
            chosen["extra_body"] = {"stream": True, **usage}
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
    if dialect.limit == "max_tokens" and OTHER_LIMIT.search(refusal):
        return dialect._replace(limit="max_completion_tokens")
    for name in ("seed", "temperature", *(["stream_options"] if dialect.stream else [])):
        if getattr(dialect, name) and re.search(rf"\b{name}\b", refusal):
            return dialect._replace(**{name: False})
    if not dialect.stream and STREAM_ONLY.match(refusal):
        return dialect._replace(stream=True)
    if has_schema and dialect.structured is not None:
        return dialect._replace(structured="json_object" if dialect.structured == "json_schema" else None)
    return None
