"""A cache on disk of a model's answers, so that a repeated run sends no request again; and concurrent requests."""

import hashlib
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from stratalens.errors import OutputError
from stratalens.files.atomic import read_checksummed, write_checksummed
from stratalens.files.locations import ANOTHER_CACHE
from stratalens.labels.llm.chat import (
    ChatModel,
    Message,
    NoReply,
    Reply,
)

KEY_VERSION = 3
"""Part of every key: after a change of this number older files are ignored."""
MAX_PENDING_PER_WORKER = 4
"""Items in progress or finished per worker while an earlier one is awaited."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Usage(NamedTuple):
    """Requests and tokens used so far; answers from the cache count only as `cached`."""

    requests: int = 0
    """Requests to the model, answered or not."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    """Answers without a request: from disk, or from a request of another thread that was in progress."""
    failed: int = 0
    """Requests that got no reply."""


class CachedModel:
    """A model whose replies are stored by model, messages, `max_tokens` and schema. Failures are not stored.

    Replies quote the corpus, so only the user may read their files.

    An incomplete or altered file does not match its checksum; it is ignored and replaced. A process killed while
    writing leaves at most a temporary file that is never read.

    Args:
        model: asked for replies that are not stored.
        directory: of the stored replies; created when needed. May be shared between models and processes.
        identity: what else of the model its answers depend on, besides its name. Only a hash of it is stored.
    """

    def __init__(self, model: ChatModel, directory: Path, identity: str = ""):
        self._model = model
        self._identity = identity
        self._directory = directory
        self._lock = threading.Lock()
        self._in_flight: dict[str, Future[Reply]] = {}
        self._usage = Usage()

    @property
    def name(self) -> str:
        """Name of the model behind the cache."""
        return self._model.name

    @property
    def concurrency(self) -> int:
        """Number of requests that the model behind the cache takes at the same time."""
        return self._model.concurrency

    def usage(self) -> Usage:
        """Return what this object has used so far, in all threads."""
        with self._lock:
            return self._usage

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """Return the stored reply, else the model's; see `ChatModel`. The same question is never in progress twice.

        Raises:
            OutputError: the reply cannot be stored.
        """
        key = _key((self.name, self._identity), messages, max_tokens, schema)
        with self._lock:
            in_progress = self._in_flight.get(key)
            own: Future[Reply] = Future()
            if in_progress is None:
                self._in_flight[key] = own
        if in_progress is not None:
            answer = in_progress.result()
            self._count(cached=1)
            return answer
        try:
            answer = self._read_or_ask(key, messages, max_tokens, schema)
            own.set_result(answer)
            return answer
        except BaseException as problem:
            own.set_exception(problem)
            raise
        finally:
            with self._lock:
                del self._in_flight[key]

    def _read_or_ask(
        self, key: str, messages: Sequence[Message], max_tokens: int, schema: Mapping[str, object] | None
    ) -> Reply:
        path = self._directory / key[:2] / f"{key[2:]}.json"
        stored = _read(path, key)
        if stored is not None:
            self._count(cached=1)
            return stored
        try:
            answer = self._model.reply(messages, max_tokens=max_tokens, schema=schema)
        except NoReply:
            self._count(requests=1, failed=1)
            raise
        self._count(requests=1, prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)
        _write(path, key, answer)
        return answer

    def _count(self, **added: int) -> None:
        with self._lock:
            self._usage = self._usage._replace(
                **{field: getattr(self._usage, field) + number for field, number in added.items()}
            )


def _key(
    model: tuple[str, str], messages: Sequence[Message], max_tokens: int, schema: Mapping[str, object] | None
) -> str:
    """Return the SHA-256 of all that an answer depends on, which includes the order of a schema's properties."""
    turns = [[message["role"], message["content"]] for message in messages]
    return hashlib.sha256(json.dumps([KEY_VERSION, *model, turns, max_tokens, schema]).encode()).hexdigest()


def _read(path: Path, key: str) -> Reply | None:
    """Return the stored reply; None if there is none, the file is damaged, or it answers another question."""
    try:
        body = read_checksummed(path, key)
    except OSError:
        return None
    return None if body is None else Reply(**json.loads(body))


def _write(path: Path, key: str, answer: Reply) -> None:
    try:
        write_checksummed(path, key, json.dumps(answer._asdict()).encode(), private=True)
    except OSError as problem:
        raise OutputError(
            f"{path.parent}: answers of the labelling model cannot be stored ({problem.strerror}); "
            f"free some space, or {ANOTHER_CACHE}"
        ) from None


def map_concurrently(function: Callable[[Item], Outcome], items: Iterable[Item], concurrency: int) -> Iterator[Outcome]:
    """Apply a function to items in several threads, and yield the results in the order of the items.

    At most `MAX_PENDING_PER_WORKER` items per thread are taken ahead of the results. If the consumer stops or anything
    is raised, calls that have not started are dropped, and running ones are waited for, except after Ctrl-C.
    """
    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="labels")
    pending: deque[Future[Outcome]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= MAX_PENDING_PER_WORKER * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=not isinstance(sys.exception(), KeyboardInterrupt), cancel_futures=True)
