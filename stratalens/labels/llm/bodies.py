"""Bodies of answers in the OpenAI protocol, whole or streamed, in the forms that servers give them."""

import re
from itertools import chain
from typing import Any

from pydantic import BaseModel, Field, field_validator, model_validator

from stratalens.labels.llm.chat import NoReply
from stratalens.labels.llm.events import body_of, events_of, is_streamed, json_of
from stratalens.labels.llm.reasoning import STEMS

MAX_TOKENS_USED = 2**31 - 1
"""By one request; a server that reports more, or less than none, is taken to report nothing."""
MAX_PART_LEVELS = 8
"""Parts of a message may hold parts, in so many levels."""
REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks", "thought")
"""Fields of a message in which servers put the reasoning of a model; an answer never stands there."""
CUT_OFF_REASONS = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "token_limit", "incomplete"})
"""How servers say, in any case of letters, that an answer has reached `max_tokens` or the end of the context."""
STOPPED_REASONS = frozenset(
    {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii", "sensitive", "refusal"}
    | {"error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "network_error"}
)
"""How servers say that they stopped the model before its answer was whole; more room would not help."""
_NO_ANSWER_PART = re.compile(rf"{STEMS}|summary|tool|function|image|audio|refusal", re.IGNORECASE)
"""Types of parts that are not the text of an answer."""


class AnswerMessage(BaseModel):
    """The message of an answer, or the piece of one that an event of a stream brings."""

    content: str = ""
    """Text of the answer, perhaps with reasoning in marks."""
    reasoned: bool = False
    """Whether reasoning came apart from it."""

    @model_validator(mode="before")
    @classmethod
    def _of_any_form(cls, message: object) -> object:
        if not isinstance(message, dict):
            return message
        content = message.get("content")
        text = _answer_text(content)
        reasoned = any(message.get(name) for name in REASONING_FIELDS) or (isinstance(content, list) and not text)
        return {"content": text, "reasoned": bool(reasoned)}


class Choice(BaseModel):
    """One answer of several, or its next piece."""

    index: int = 0
    message: AnswerMessage = Field(default_factory=AnswerMessage)
    finish_reason: str | None = None
    whole: bool = False
    """Whether it comes as a whole message; servers may send one at the end of a stream."""

    @model_validator(mode="before")
    @classmethod
    def _of_any_form(cls, choice: object) -> object:
        if not isinstance(choice, dict):
            return choice
        message, delta = choice.get("message"), choice.get("delta")
        whole = bool(message) and not (isinstance(delta, dict) and delta.get("content"))
        message = message if whole else delta
        reason = choice.get("finish_reason") or choice.get("done_reason") or choice.get("stop_reason")
        if message is None and isinstance(choice.get("text"), str):
            message = {"content": choice["text"]}
        place = {"index": choice.get("index") or 0, "whole": whole}
        return place | {"message": message or {}, "finish_reason": reason}

    @field_validator("finish_reason", mode="before")
    @classmethod
    def _only_text(cls, reason: object) -> object:
        reason = reason.get("type") if isinstance(reason, dict) else reason
        return reason if isinstance(reason, str) else None


class TokenUsage(BaseModel):
    """Tokens that a request used."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @field_validator("prompt_tokens", "completion_tokens", mode="before")
    @classmethod
    def _possible(cls, tokens: object) -> int | None:
        return tokens if type(tokens) is int and 0 <= tokens <= MAX_TOKENS_USED else None


class Completion(BaseModel):
    """The body of an answer, or an event of a stream."""

    choices: list[Choice]
    usage: TokenUsage | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_any_form(cls, body: object) -> object:
        """Take Ollama's own form as well, which has one message and no list of choices."""
        if isinstance(body, dict) and "choices" not in body and isinstance(body.get("message"), dict):
            used = {"prompt_tokens": body.get("prompt_eval_count"), "completion_tokens": body.get("eval_count")}
            return {"choices": [body], "usage": used}
        if isinstance(body, dict) and "choices" in body:
            usage = body.get("usage")
            return {"choices": body["choices"] or [], "usage": usage if isinstance(usage, dict) else None}
        return body

    @property
    def stopped(self) -> str | None:
        """Why the server stopped the model before its answer was whole; None if it did not."""
        reason = (self.choices[0].finish_reason or "").lower()
        return reason if reason in STOPPED_REASONS else None

    def is_cut_off(self, max_tokens: int) -> bool:
        """Whether the end of the answer is missing."""
        reason = (self.choices[0].finish_reason or "").lower()
        used = self.usage.completion_tokens if self.usage is not None else None
        return reason in CUT_OFF_REASONS or (not reason and used is not None and used >= max_tokens)


def read_completion(body: bytes, content_type: str) -> Completion:
    """Read the body of an answer, whole or streamed, whether or not a stream was asked for.

    Raises:
        NoReply: a stream has too many events, or stops before the answer ends.
        ValueError: it is no answer.
    """
    if not is_streamed(body, content_type):
        return Completion.model_validate(json_of(body_of(body)))
    pieces = [event for event in map(json_of, events_of(body)) if _holds_piece(event)]
    return _joined(list(map(Completion.model_validate, pieces)), ended=_says_that_it_ends(body, pieces))


def error_status(body: bytes, content_type: str) -> int | None:
    """Return the status that an error should have had which came with HTTP 200; None if the body holds no error.

    Raises:
        NoReply: a stream has too many events.
    """
    if is_streamed(body, content_type):
        candidates = (event for event in events_of(body) if _may_be_error(event))
    else:
        candidates = iter([body_of(body)])
    try:
        return next(filter(None, (_status_of(json_of(candidate)) for candidate in candidates)), None)
    except ValueError:
        return None


def _answer_text(content: object, level: int = 0) -> str:
    """The text of an answer: a text, or parts of which some are texts and others hold parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and level < MAX_PART_LEVELS:
        return "".join(_answer_text(part, level + 1) for part in content)
    if not isinstance(content, dict) or level >= MAX_PART_LEVELS:
        raise ValueError("neither text nor parts")
    if _NO_ANSWER_PART.search(str(content.get("type", ""))) or content.get("thought") is True:
        return ""
    inner = next((content[name] for name in ("text", "content", "value", "parts") if content.get(name)), None)
    return _answer_text(inner, level + 1)


def _may_be_error(event: bytes) -> bool:
    return b"error" in event or b"detail" in event or (b"message" in event and b"choices" not in event)


def _holds_piece(event: object) -> bool:
    return isinstance(event, dict) and ("choices" in event or "message" in event)


def _says_that_it_ends(body: bytes, pieces: list[Any]) -> bool:
    return b"[DONE]" in body[-200:] or any(piece.get("done") is True for piece in pieces)


def _joined(pieces: list[Completion], *, ended: bool) -> Completion:
    own = [choice for piece in pieces for choice in piece.choices if choice.index == 0]
    if not own:
        return Completion(choices=[])
    reasons = [choice.finish_reason for choice in own if choice.finish_reason]
    if not reasons and not ended:
        raise NoReply("the server's stream stopped before the answer ended")
    said = [choice for choice in own if not choice.whole or not choice.message.content]
    if any(choice.message.content for choice in said):  # what a whole message at the end says once more
        own = said
    message = AnswerMessage.model_construct(
        content="".join(choice.message.content for choice in own), reasoned=any(c.message.reasoned for c in own)
    )
    usage = [piece.usage for piece in pieces if piece.usage is not None]
    choice = Choice.model_construct(index=0, message=message, finish_reason=reasons[-1] if reasons else None)
    return Completion.model_construct(choices=[choice], usage=usage[-1] if usage else None)


_STATUS_WORDS = {
    401: r"invalid[ _]?api[ _]?key|authenti|unauthori",
    403: r"permission|\bforbidden",
    402: r"insufficient_quota|billing|credit|payment",
    404: r"not[ _]?found",
    429: r"rate[ _]?limit|too[ _]?many",
    503: r"overloaded|unavailable|capacity|busy",
    500: r"server[ _]?error|internal|timeout",
}
"""Status -> what the type or code of such an error looks like, or all of its text; first match first."""
MAX_ERROR_CHARACTERS = 80
"""Longer texts of errors are not looked through: they may repeat the prompt."""
REFUSED = 400
"""Status of an error that does not say what it is."""


def _status_of(body: object) -> int | None:
    """Return the status of an error; None if this is none. An answer may have an empty field for errors."""
    if isinstance(body, list) and body and isinstance(body[0], dict) and "error" in body[0]:
        body = body[0]
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else body.get("message")
    if isinstance(first, dict):
        body = first if first.get("error") and not (first.get("message") or first.get("delta")) else body
        if body is not first and not body.get("error"):
            return None
    error = body.get("error") or body.get("errors") or body.get("detail")
    named = "error" in (body.get("object"), body.get("type"), body.get("status")) or body.get("success") is False
    failed = isinstance(body.get("message"), str) and "choices" not in body
    if not (error or named or failed):
        return None
    return _named_status([error[0] if isinstance(error, list) and error else error, body])


def _named_status(places: list[object]) -> int:
    """The number, else the word, by which an error says what it is."""
    fields = ("code", "status", "status_code", "type", "object")
    values = [place.get(name) for place in places if isinstance(place, dict) for name in fields]
    numbers = [int(str(value)) for value in values if re.fullmatch(r"[45]\d\d", str(value))]
    texts = [text for text in (*values, *places) if isinstance(text, str) and len(text) <= MAX_ERROR_CHARACTERS]
    words = " ".join(texts).lower()
    return next(chain(numbers, (status for status, form in _STATUS_WORDS.items() if re.search(form, words))), REFUSED)
