"""A labelling model on a server with the OpenAI protocol: vLLM, llama.cpp, Ollama, or a hosted service."""

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from stratalens.errors import LabelingError
from stratalens.files.redaction import redacted
from stratalens.labels.llm.address import base_url, is_readable_on_the_way, origin, secrets_in
from stratalens.labels.llm.bodies import Completion, TokenUsage, read_completion
from stratalens.labels.llm.chat import (
    MORE_TIME,
    CutOff,
    Message,
    NoReply,
    Reply,
    Unavailable,
    usable_text,
)
from stratalens.labels.llm.client import CONNECT_SECONDS, client_failures, open_client
from stratalens.labels.llm.dialect import (
    MIN_ROOM,
    ROOM_EXCEEDED,
    ROOM_REACHED,
    Dialect,
    ServedModels,
    relax_dialect,
)
from stratalens.labels.llm.failures import Server, error_body_of, run_error
from stratalens.labels.llm.keys import find_key
from stratalens.labels.llm.masking import KeyMask

MAX_CHECK_TOKENS = 16
"""Some hosted models reject a lower limit."""
MAX_LIST_SECONDS = 60.0
"""For the list of models, which no model has to write."""
MAX_NAMES_SHOWN = 5
MAX_NAME_CHARACTERS = 120
"""Of a model that the server names; one that the user names may be longer."""
MAX_ANSWER_CHARACTERS = 20_000
"""Of an answer without its reasoning: far more than `max_tokens` allows, unless the server ignores it."""
MAX_TEXT_CHARACTERS = 2_000_000
"""Of an answer with its reasoning."""
REFUSALS = (400, 404, 405, 406, 415, 422, 501)
"""Statuses with which servers refuse a part of a request."""
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
        keys = [*([] if key is None else [key]), *secrets_in(self._url)]
        self._server = Server(self._url, KeyMask(*keys), bool(keys), timeout_seconds)
        self._dialect = Dialect()
        self._lock = threading.RLock()
        self._thread_state = threading.local()
        self._server_responded = False
        self._client: Any = open_client(
            self._url, key, self._server.mask, timeout_seconds, self._before_attempt, self._note_response
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
        return self._server.has_key and is_readable_on_the_way(self._url)

    @property
    def name(self) -> str:
        """Model and host; asks the server where no model was named."""
        return f"{self.model} at {urlsplit(self._url).netloc}"

    @property
    def identity(self) -> str:
        """All of the address: path and query, too, may choose what answers. It may hold a key, so it is never shown."""
        return self._url

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
            except CutOff:
                return  # the model is there, and reasons for longer than this
            except (openai.OpenAIError, NoReply) as problem:
                error = problem if isinstance(problem, NoReply) else self._run_error(problem)
                if isinstance(error, LabelingError):
                    raise error from None
                detail = (
                    f": {self._server.mask.one_line(problem.response.text)}"
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
            raise self._run_error(problem, error_body_of(problem, messages)) from None
        if not completion.choices:
            raise NoReply("the server's answer holds no choice")
        message, tokens = completion.choices[0].message, completion.usage or TokenUsage()
        if len(message.content) > MAX_TEXT_CHARACTERS:
            raise NoReply(f"answer longer than {MAX_TEXT_CHARACTERS:,} characters with its reasoning")
        if completion.stopped:
            raise NoReply(f"the server stopped the answer before its end ({completion.stopped})")
        cut_off = completion.is_cut_off(max_tokens)
        text = usable_text(message.content, cut_off, reasoned=message.reasoned)
        if len(text) > MAX_ANSWER_CHARACTERS:
            raise NoReply(f"answer longer than {MAX_ANSWER_CHARACTERS:,} characters")
        return Reply(self._server.mask.mask(text), tokens.prompt_tokens or 0, tokens.completion_tokens or 0, cut_off)

    def _complete(
        self, messages: Sequence[Message], max_tokens: int, schema: Mapping[str, object] | None
    ) -> Completion:
        """Send a request without the optional parts that the server refused before or refuses now, and with less room.

        Raises:
            CutOff: the server says that the answer did not begin within its room.
            NoReply: the server's answer is none.
            openai.OpenAIError: the server refuses the request in every form.
        """
        import openai

        dialect: Dialect | None = self._dialect
        create = self._client.chat.completions.with_raw_response.create
        while True:
            try:
                parameters = {"model": self.model, "messages": list(messages), **dialect.parameters(max_tokens, schema)}
                with client_failures():
                    answer = create(**parameters)
                break
            except openai.APIStatusError as problem:
                if problem.status_code not in REFUSALS:
                    raise
                refusal = error_body_of(problem, messages)
                if ROOM_REACHED.search(refusal):
                    raise CutOff("cut off before the answer began") from None
                if not ROOM_EXCEEDED.search(refusal):
                    dialect = relax_dialect(dialect, refusal, schema is not None)
                elif max_tokens > MIN_ROOM:
                    max_tokens = max(max_tokens // 2, MIN_ROOM)
                else:
                    dialect = None
                if dialect is None:
                    raise
        # Kept only after a success: the server may have refused the prompt, not a part of the request.
        if dialect != self._dialect:
            with self._lock:
                self._dialect = dialect
        try:
            return read_completion(answer.content, answer.headers.get("content-type", ""))
        except ValueError:
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
        return self._server.mask.one_line(name)[:MAX_NAME_CHARACTERS]

    def _served_models(self) -> list[str] | None:
        """Return the names of the models served; None if the server does not list them."""
        import openai

        seconds = min(MAX_LIST_SECONDS, self.timeout_seconds)
        server = self._server._replace(timeout_seconds=seconds)
        timeout = openai.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        try:
            with client_failures():
                answer = self._client.with_options(max_retries=1, timeout=timeout).models.with_raw_response.list()
            return [model.id for model in ServedModels.model_validate_json(answer.content).data]
        except (openai.NotFoundError, ValidationError):  # the server has no list of models, or not a valid one
            return None
        except (openai.OpenAIError, NoReply) as problem:
            error = problem if isinstance(problem, NoReply) else run_error(problem, "", server, self._model)
            if isinstance(error, NoReply) and isinstance(problem, openai.APIStatusError):
                return None
            if isinstance(error, NoReply):
                error = LabelingError(f"{self.address}: {error}; check that the server is up")
            raise error from None

    def _run_error(self, problem: Exception, error_body: str = "") -> LabelingError | NoReply:
        import openai

        if type(problem) is openai.APIConnectionError and self._server_responded:
            return Unavailable("connection lost")
        return run_error(problem, error_body, self._server, self._model)

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
            raise Unavailable(f"no answer within {3 * self.timeout_seconds:g} s", MORE_TIME)

    def _note_response(self) -> None:
        self._server_responded = True
