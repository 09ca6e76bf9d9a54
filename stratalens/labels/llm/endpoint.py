"""A labelling model on a server with the OpenAI protocol: vLLM, llama.cpp, Ollama, or a hosted service."""

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
from stratalens.files.redaction import redacted
from stratalens.labels.llm.address import base_url, is_readable_on_the_way, origin
from stratalens.labels.llm.chat import (
    Message,
    NoReply,
    Reply,
    usable_text,
)
from stratalens.labels.llm.client import client_failures, open_client
from stratalens.labels.llm.dialect import (
    Completion,
    Dialect,
    ServedModels,
    TokenUsage,
    relax_dialect,
)
from stratalens.labels.llm.keys import find_key, how_to_set_a_key
from stratalens.labels.llm.masking import KeyMask

MAX_CHECK_TOKENS = 16
"""Some hosted models reject a lower limit."""
MAX_NAMES_SHOWN = 5
MAX_NAME_CHARACTERS = 120
"""Of a model that the server names; one that the user names may be longer."""
MAX_ANSWER_CHARACTERS = 20_000
"""Of an answer without its reasoning: far more than `max_tokens` allows, unless the server ignores it."""
CONTEXT_EXCEEDED = re.compile(r"context[ _](length|window|size)|prompt is too long", re.IGNORECASE)
CHECK_MESSAGES = [Message(role="user", content="Say yes.")]


class EndpointModel:
    """A model on a server; may be used from several threads.

    A call makes up to five attempts, but starts none later than three times `timeout_seconds` after its own start. An
    attempt takes at most ten seconds plus twice `timeout_seconds`; a pause between attempts at most eight seconds, or
    as long as the server asks for in Retry-After, up to two minutes.

    Args:
        url: address of the server, with or without `/v1`.
        model: name of the model on the server; None for the only one that it serves.
        concurrency: requests in progress at the same time.
        timeout_seconds: for the server to begin its answer, and again to complete it.
        api_key: None for that of the environment variable `STRATALENS_API_KEY` or, at OpenAI's own address,
            `OPENAI_API_KEY`, if one is set.

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
        key = find_key(self._url, api_key)
        self._has_key = key is not None
        self._mask = KeyMask(key)
        self._dialect = Dialect()
        self._lock = threading.RLock()
        self._thread_state = threading.local()
        self._server_responded = False
        self._client: Any = open_client(
            self._url, key, self._mask, timeout_seconds, self._before_attempt, self._note_response
        )

    def __repr__(self) -> str:
        return f"EndpointModel({redacted(self._url)!r}, model={self._model!r})"

    @property
    def address(self) -> str:
        """Scheme, host and port."""
        return origin(self._url)

    @property
    def exposes_key(self) -> bool:
        """Whether others can read the API key on its way to the server."""
        return self._has_key and is_readable_on_the_way(self._url)

    @property
    def name(self) -> str:
        """Model and host; asks the server where no model was named."""
        return f"{self.model} at {urlsplit(self._url).netloc}"

    @property
    def model(self) -> str:
        """Name of the model on the server, which is asked for it if no name was given.

        Raises:
            LabelingError: no name was given, and the server does not serve exactly one model or cannot be reached.
        """
        with self._lock:
            if self._model is None:
                self._model = self._only_model()
            return self._model

    def check(self) -> None:
        """Check that the server has the model or answers a short request, before the run starts.

        Raises:
            LabelingError: the model cannot be used; the message says what to do.
        """
        import openai

        with self._bounded_call():
            if self._model is None or self._model in (self._served_models() or ()):
                assert self.model
                return
            # A server may serve models that it does not list, so only an answer shows whether it has this one.
            try:
                self._complete(CHECK_MESSAGES, MAX_CHECK_TOKENS, None)
            except (openai.OpenAIError, NoReply) as problem:
                error = problem if isinstance(problem, NoReply) else self._run_error(problem, "")
                if isinstance(error, LabelingError):
                    raise error from None
                detail = (
                    f": {self._mask.one_line(problem.response.text)}"
                    if isinstance(problem, openai.APIStatusError)
                    else ""
                )
                raise LabelingError(
                    f"{self.address}: {self._model} gives no answer ({error}{detail}); "
                    "see the server's log, or name another model with --labeling_model"
                ) from None

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """Send one request; see `ChatModel`. If the server rejects the schema, any JSON is asked for, else any text."""
        import openai

        try:
            with self._bounded_call():
                completion = self._complete(messages, max_tokens, schema)
        except openai.OpenAIError as problem:
            raise self._run_error(problem, _error_body(problem, messages)) from None
        if not completion.choices:
            raise NoReply("the server's answer holds no choice")
        choice, tokens = completion.choices[0], completion.usage or TokenUsage()
        cut_off = choice.finish_reason == "length"
        text = usable_text(choice.message.content, cut_off)
        if len(text) > MAX_ANSWER_CHARACTERS:
            raise NoReply(f"answer longer than {MAX_ANSWER_CHARACTERS:,} characters")
        return Reply(self._mask.mask(text), tokens.prompt_tokens or 0, tokens.completion_tokens or 0, cut_off)

    def _complete(
        self, messages: Sequence[Message], max_tokens: int, schema: Mapping[str, object] | None
    ) -> Completion:
        """Send a request without the optional parts that the server refused before or refuses now."""
        import openai

        dialect = self._dialect
        create = self._client.chat.completions.with_raw_response.create
        while True:
            try:
                parameters = {"model": self.model, "messages": list(messages), **dialect.parameters(max_tokens, schema)}
                with client_failures():
                    answer = create(**parameters)
                break
            except openai.APIStatusError as problem:
                error_body = _error_body(problem, messages)
                refused = problem.status_code in (400, 404, 422) and not CONTEXT_EXCEEDED.search(error_body)
                relaxed = relax_dialect(dialect, error_body, schema is not None) if refused else None
                if relaxed is None:
                    raise
                dialect = relaxed
        # Kept only after a success: the server may have refused the prompt, not a part of the request.
        if dialect != self._dialect:
            with self._lock:
                self._dialect = dialect
        try:
            return Completion.model_validate_json(answer.content)
        except ValidationError:
            raise NoReply("the server's answer is no chat completion") from None

    def _only_model(self) -> str:
        with self._bounded_call():
            names = self._served_models()
        if not names:
            raise LabelingError(f"{self.address} does not list its models; name one with --labeling_model NAME")
        if len(names) > 1:
            shown = [self._shown_name(name) for name in names[:MAX_NAMES_SHOWN]]
            listed = ", ".join(shown) + (", ..." if len(names) > MAX_NAMES_SHOWN else "")
            raise LabelingError(
                f"{self.address} serves {len(names)} models ({listed}); choose one with --labeling_model NAME"
            )
        if not names[0] or self._shown_name(names[0]) != names[0]:
            raise LabelingError(
                f"{self.address} names its model {self._shown_name(names[0])}; expected at most {MAX_NAME_CHARACTERS} "
                "printable characters without the API key; name one with --labeling_model NAME"
            )
        return names[0]

    def _shown_name(self, name: str) -> str:
        return self._mask.one_line(name)[:MAX_NAME_CHARACTERS]

    def _served_models(self) -> list[str] | None:
        """Return the names of the models served; None if the server does not list them."""
        import openai

        try:
            with client_failures():
                answer = self._client.with_options(max_retries=1).models.with_raw_response.list()
            return [model.id for model in ServedModels.model_validate_json(answer.content).data]
        except (openai.NotFoundError, ValidationError):  # the server has no list of models, or not a valid one
            return None
        except (openai.OpenAIError, NoReply) as problem:
            error = problem if isinstance(problem, NoReply) else self._run_error(problem, "")
            if isinstance(error, NoReply) and isinstance(problem, openai.APIStatusError):
                return None
            if isinstance(error, NoReply):
                error = LabelingError(f"{self.address}: {error}; check that the server is up")
            raise error from None

    def _run_error(self, problem: Exception, error_body: str) -> LabelingError | NoReply:
        """Turn an error of the client into one of a request or of the run, whose text holds neither key nor prompt."""
        import openai

        if isinstance(problem, openai.APITimeoutError):
            return NoReply(f"no answer within {self.timeout_seconds:g} s")
        if isinstance(problem, openai.APIConnectionError):
            if self._server_responded:
                return NoReply("connection lost")
            return LabelingError(
                f"{self.address}: no connection ({self._mask.one_line(str(problem.__cause__ or problem))}); "
                "start the server, or correct the address"
            )
        if not isinstance(problem, openai.APIStatusError):
            return NoReply(f"the client failed ({type(problem).__name__})")
        status = problem.status_code
        if status in (401, 403):
            response = "refuses the key" if self._has_key else "asks for a key"
            return LabelingError(f"{self.address} {response} ({status}); {how_to_set_a_key(self._url)}")
        if status == 402 or problem.code == "insufficient_quota":
            return LabelingError(f"{self.address}: the account has no credit left ({status}); top it up")
        if status == 404:
            return LabelingError(
                f"{self.address}: no model {self._model} at {redacted(self._url)} (404); "
                "correct --labeling_model or the path in the address"
            )
        if status < 500 and CONTEXT_EXCEEDED.search(error_body):
            return NoReply("prompt longer than the model's context")
        response = "is overloaded" if status == 429 else "failed" if status >= 500 else "refuses the request"
        return NoReply(f"the server {response} ({status})")

    @contextmanager
    def _bounded_call(self) -> Iterator[None]:
        outer_deadline = getattr(self._thread_state, "deadline", math.inf)
        self._thread_state.deadline = min(outer_deadline, time.monotonic() + 3 * self.timeout_seconds)
        try:
            yield
        finally:
            self._thread_state.deadline = outer_deadline

    def _before_attempt(self) -> None:
        if time.monotonic() > getattr(self._thread_state, "deadline", math.inf):
            raise NoReply(f"no answer within {3 * self.timeout_seconds:g} s")

    def _note_response(self) -> None:
        self._server_responded = True


def _error_body(problem: Any, messages: Sequence[Message]) -> str:
    """Return the body of an error without the prompt, which servers may repeat and which may mention `seed`."""
    text = problem.response.text if hasattr(problem, "response") else ""
    for message in messages:
        for ascii_only in (True, False):
            quoted = json.dumps(message["content"], ensure_ascii=ascii_only)[1:-1]
            text = text.replace(quoted, "") if quoted else text
    return text
