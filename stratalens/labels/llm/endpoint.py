"""A labelling model behind an address that speaks the OpenAI protocol: vLLM, llama.cpp, Ollama, a hosted service."""

import json
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from stratalens.errors import LabelingError
from stratalens.labels.llm.chat import (
    Message,
    NoReply,
    Reply,
    usable_text,
)
from stratalens.labels.llm.client import (
    KEY_VARIABLES,
    PLACEHOLDER_KEY,
    base_url,
    find_key,
    open_client,
)
from stratalens.labels.llm.dialect import (
    Completion,
    Dialect,
    Models,
    Tokens,
    milder,
)

CHECK_TOKENS = 16
"""Some hosted models refuse to answer within fewer."""
NAMES_SHOWN = 5
TOO_LONG = re.compile(r"context[ _](length|window|size)|prompt is too long", re.IGNORECASE)
ASK = [Message(role="user", content="Say yes.")]


class EndpointModel:
    """A model behind an address; safe to ask from several threads.

    A call tries up to five times, but begins no attempt later than three times `timeout_seconds` after its start. An
    attempt lasts at most about ten seconds to connect plus three times `timeout_seconds`, a pause at most eight
    seconds, or what the server asks for in Retry-After up to two minutes.

    Args:
        url: with or without `/v1`.
        model: as the server names it; None takes the only one served.
        concurrency: requests under way at once.
        timeout_seconds: for the server to begin its answer, and again to complete it.
        api_key: else `STRATALENS_API_KEY`, else `OPENAI_API_KEY` from the environment, else none.

    Raises:
        LabelingError: the address or the key is malformed, or the package `openai` is missing.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        concurrency: int = 8,
        timeout_seconds: float = 60.0,
        api_key: str | None = None,
    ):
        self.concurrency = concurrency
        self.timeout_seconds = timeout_seconds
        self._url = base_url(url)
        self._model = model
        key = find_key(api_key)
        self._has_key = key is not None
        self._dialect = Dialect()
        self._lock = threading.RLock()
        self._call = threading.local()
        self._heard = False
        self._client: Any = open_client(
            self._url, key or PLACEHOLDER_KEY, timeout_seconds, self._before_attempt, self._hear
        )

    def __repr__(self) -> str:
        return f"EndpointModel({self._url!r}, model={self._model!r})"

    @property
    def address(self) -> str:
        """Scheme, host and port."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def name(self) -> str:
        """Model and host; asks the server where no model was named."""
        return f"{self.model} at {urlsplit(self._url).netloc}"

    @property
    def model(self) -> str:
        """As the server names it; asks the server where none was named."""
        with self._lock:
            if self._model is None:
                self._model = self._only_model()
            return self._model

    def check(self) -> None:
        """Ask the server for something tiny, so that a run finds out before it starts.

        Raises:
            LabelingError: the model cannot be used; the message says what to do.
        """
        import openai

        with self._bounded_call():
            if self._model is None or self._model in (self._listed() or ()):
                assert self.model
                return
            # A server may serve more than it lists, so only an answer tells.
            try:
                self._complete(ASK, CHECK_TOKENS, None)
            except (openai.OpenAIError, NoReply) as problem:
                failure = problem if isinstance(problem, NoReply) else self._failure(problem, "")
                if isinstance(failure, LabelingError):
                    raise failure from None
                said = f": {self._quote(problem.response.text)}" if isinstance(problem, openai.APIStatusError) else ""
                raise LabelingError(
                    f"{self.address}: {self._model} gives no answer ({failure}{said}); "
                    "see the server's log, or name another model with --labeling_model"
                ) from None

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """Ask once; see `ChatModel`. Where the server takes no schema, JSON is asked for, else any text."""
        import openai

        try:
            with self._bounded_call():
                completion = self._complete(messages, max_tokens, schema)
        except openai.OpenAIError as problem:
            raise self._failure(problem, _refusal(problem, messages)) from None
        if not completion.choices:
            raise NoReply("the server's answer holds no choice")
        choice, tokens = completion.choices[0], completion.usage or Tokens()
        cut_off = choice.finish_reason == "length"
        text = usable_text(choice.message.content, cut_off)
        return Reply(text, tokens.prompt_tokens or 0, tokens.completion_tokens or 0, cut_off)

    def _complete(
        self, messages: Sequence[Message], max_tokens: int, schema: Mapping[str, object] | None
    ) -> Completion:
        """Ask with all that the server is not known to refuse; what it refuses only now is left out from here on."""
        import openai

        tried = self._dialect
        create = self._client.chat.completions.with_raw_response.create
        while True:
            try:
                answer = create(model=self.model, messages=list(messages), **tried.parameters(max_tokens, schema))
                break
            except openai.APIStatusError as problem:
                refusal = _refusal(problem, messages)
                refused = problem.status_code in (400, 404, 422) and not TOO_LONG.search(refusal)
                gentler = milder(tried, refusal, schema is not None) if refused else None
                if gentler is None:
                    raise
                tried = gentler
        # Kept only now that it is known to help: the refusal might have been of the prompt.
        if tried != self._dialect:
            with self._lock:
                self._dialect = tried
        try:
            return Completion.model_validate_json(answer.content)
        except ValidationError:
            raise NoReply("the server's answer is no chat completion") from None

    def _only_model(self) -> str:
        with self._bounded_call():
            names = self._listed()
        if not names:
            raise LabelingError(f"{self.address} does not list its models; name one with --labeling_model NAME")
        if len(names) > 1:
            shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
            raise LabelingError(
                f"{self.address} serves {len(names)} models ({shown}); choose one with --labeling_model NAME"
            )
        return names[0]

    def _listed(self) -> list[str] | None:
        """Names of the models served; None where the server does not say."""
        import openai

        try:
            answer = self._client.with_options(max_retries=1).models.with_raw_response.list()
            return [model.id for model in Models.model_validate_json(answer.content).data]
        except (openai.NotFoundError, ValidationError):  # the list is not found, not the model
            return None
        except (openai.OpenAIError, NoReply) as problem:
            failure = problem if isinstance(problem, NoReply) else self._failure(problem, "")
            if isinstance(failure, NoReply) and isinstance(problem, openai.APIStatusError):
                return None
            if isinstance(failure, NoReply):
                failure = LabelingError(f"{self.address}: {failure}; check that the server is up")
            raise failure from None

    def _failure(self, problem: Exception, refusal: str) -> LabelingError | NoReply:
        """What an error of the client means for the run, in words that hold neither key nor prompt."""
        import openai

        if isinstance(problem, openai.APITimeoutError):
            return NoReply(f"no answer within {self.timeout_seconds:g} s")
        if isinstance(problem, openai.APIConnectionError):
            if self._heard:
                return NoReply("connection lost")
            return LabelingError(
                f"{self.address}: no connection ({self._quote(str(problem.__cause__ or problem))}); "
                "start the server, or correct the address"
            )
        if not isinstance(problem, openai.APIStatusError):
            return NoReply(f"the client failed ({type(problem).__name__})")
        status = problem.status_code
        if status in (401, 403):
            says = "refuses the key" if self._has_key else "asks for a key"
            return LabelingError(f"{self.address} {says} ({status}); set the environment variable {KEY_VARIABLES[0]}")
        if status == 402 or problem.code == "insufficient_quota":
            return LabelingError(f"{self.address}: the account has no credit left ({status}); top it up")
        if status == 404:
            return LabelingError(
                f"{self.address}: no model {self._model} at {self._url} (404); "
                "correct --labeling_model or the path in the address"
            )
        if status < 500 and TOO_LONG.search(refusal):
            return NoReply("prompt longer than the model's context")
        says = "is overloaded" if status == 429 else "failed" if status >= 500 else "refuses the request"
        return NoReply(f"the server {says} ({status})")

    def _quote(self, said: str) -> str:
        """On one line, shortened, and without the key, which servers like to repeat."""
        said = said.replace(self._client.api_key, "***") if self._has_key else said
        return " ".join(said.split())[:200]

    @contextmanager
    def _bounded_call(self) -> Iterator[None]:
        before = getattr(self._call, "deadline", math.inf)
        self._call.deadline = min(before, time.monotonic() + 3 * self.timeout_seconds)
        try:
            yield
        finally:
            self._call.deadline = before

    def _before_attempt(self, _request: object) -> None:
        if time.monotonic() > getattr(self._call, "deadline", math.inf):
            raise NoReply(f"no answer within {3 * self.timeout_seconds:g} s")

    def _hear(self) -> None:
        self._heard = True


def _refusal(problem: Any, messages: Sequence[Message]) -> str:
    """The body of a refusal, without the prompt that some servers repeat: it too may speak of seed or temperature."""
    text = problem.response.text if hasattr(problem, "response") else ""
    for message in messages:
        for ascii_only in (True, False):
            quoted = json.dumps(message["content"], ensure_ascii=ascii_only)[1:-1]
            text = text.replace(quoted, "") if quoted else text
    return text
