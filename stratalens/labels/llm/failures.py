"""What an error of the client means: one request failed, or the model cannot be used at all; and what to do then."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from stratalens.errors import LabelingError
from stratalens.files.redaction import redacted
from stratalens.labels.llm.address import origin
from stratalens.labels.llm.chat import MORE_TIME, SHORTER_PROMPT, Message, NoReply, Unavailable
from stratalens.labels.llm.client import SENT_WITH_SUCCESS
from stratalens.labels.llm.dialect import ROOM_EXCEEDED
from stratalens.labels.llm.keys import how_to_set_a_key
from stratalens.labels.llm.masking import KeyMask


class Server(NamedTuple):
    """What messages say of a server."""

    url: str
    mask: KeyMask
    has_key: bool
    timeout_seconds: float

    @property
    def address(self) -> str:
        """Scheme, host and port."""
        return origin(self.url)


def run_error(problem: Exception, error_body: str, server: Server, model: str | None) -> LabelingError | NoReply:
    """Turn an error of the client into one of a request or of the run, whose text holds neither key nor prompt.

    Args:
        problem: what the client raised.
        error_body: what the server sent, without the prompt.
        server: that was asked.
        model: name of the model that was asked for.
    """
    import openai

    if isinstance(problem, openai.APITimeoutError):
        return Unavailable(f"no answer within {server.timeout_seconds:g} s", MORE_TIME)
    if isinstance(problem, openai.APIConnectionError):
        return LabelingError(
            f"{server.address}: no connection ({server.mask.one_line(str(problem.__cause__ or problem))}); "
            "start the server, or correct the address"
        )
    if not isinstance(problem, openai.APIStatusError):
        return NoReply(f"the client failed ({type(problem).__name__})")
    status = problem.status_code
    if status in (401, 403):
        response = "refuses the key" if server.has_key else "asks for a key"
        return LabelingError(f"{server.address} {response} ({status}); {how_to_set_a_key(server.url)}")
    if status == 402 or problem.code == "insufficient_quota":
        return LabelingError(f"{server.address}: the account has no credit left ({status}); top it up")
    if status == 404:
        return LabelingError(
            f"{server.address}: no model {model} at {redacted(server.url)} (404); "
            "correct --labeling_model or the path in the address"
        )
    if status < 500 and ROOM_EXCEEDED.search(error_body):
        return NoReply("prompt longer than the model's context", SHORTER_PROMPT)
    response = "is overloaded" if status == 429 else "failed" if status >= 500 else "refuses the request"
    how = ", sent with status 200" if SENT_WITH_SUCCESS in problem.response.extensions else ""
    kind = Unavailable if status == 429 or status >= 500 else NoReply
    return kind(f"the server {response} ({status}{how})")


def error_body_of(problem: Any, messages: Sequence[Message]) -> str:
    """Return the body of an error without the prompt, which servers may repeat and which may mention `seed`."""
    text = problem.response.text if hasattr(problem, "response") else ""
    for message in messages:
        for ascii_only in (True, False):
            quoted = json.dumps(message["content"], ensure_ascii=ascii_only)[1:-1]
            text = text.replace(quoted, "") if quoted else text
    return text
