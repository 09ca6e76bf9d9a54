"""Answers kept on disk, so that a killed run resumes and a second one asks nothing; and asking many at once."""

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
from stratalens.labels.llm.chat import (
    ChatModel,
    Message,
    NoReply,
    Reply,
)

FORMAT = 1
"""Part of every key: a new one makes all older files unread."""
AHEAD = 4
"""Results per worker that may wait for a slow one before them."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Usage(NamedTuple):
    """What was asked so far; answers from the cache cost nothing and count only as `cached`."""

    requests: int = 0
    """Asked of the model, answered or not."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    """Answers that needed no request: from disk, or from a request under way for another thread."""
    failed: int = 0
    """Requests that got no reply."""


class CachedModel:
    """A model whose replies are stored by model name, messages, `max_tokens` and schema. Failures are not stored.

    A file that was torn or altered does not fit its own checksum; it is ignored and written anew. A process killed
    while writing leaves at most a temporary file that nobody reads.

    Args:
        model: asked for what is not stored.
        directory: of the store; made when first needed. May be shared between models and processes.
    """

    def __init__(self, model: ChatModel, directory: Path):
        self._model = model
        self._directory = directory
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[Reply]] = {}
        self._usage = Usage()

    @property
    def name(self) -> str:
        """Of the model behind the cache."""
        return self._model.name

    @property
    def concurrency(self) -> int:
        """Of the model behind the cache."""
        return self._model.concurrency

    def usage(self) -> Usage:
        """What this object asked so far, in all threads."""
        with self._lock:
            return self._usage

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """The stored reply, else the model's; see `ChatModel`. The same question is never under way twice.

        Raises:
            OutputError: the reply cannot be stored.
        """
        key = _key(self.name, messages, max_tokens, schema)
        with self._lock:
            other = self._under_way.get(key)
            mine: Future[Reply] = Future()
            if other is None:
                self._under_way[key] = mine
        if other is not None:
            answer = other.result()
            self._count(cached=1)
            return answer
        try:
            answer = self._stored_or_asked(key, messages, max_tokens, schema)
            mine.set_result(answer)
            return answer
        except BaseException as problem:
            mine.set_exception(problem)
            raise
        finally:
            with self._lock:
                del self._under_way[key]

    def _stored_or_asked(
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

    def _count(self, **more: int) -> None:
        with self._lock:
            self._usage = self._usage._replace(
                **{field: getattr(self._usage, field) + number for field, number in more.items()}
            )


def _key(name: str, messages: Sequence[Message], max_tokens: int, schema: Mapping[str, object] | None) -> str:
    """SHA-256 over all that an answer depends on; the order of a schema's properties is part of that."""
    turns = [[message["role"], message["content"]] for message in messages]
    return hashlib.sha256(json.dumps([FORMAT, name, turns, max_tokens, schema]).encode()).hexdigest()


def _read(path: Path, key: str) -> Reply | None:
    """The reply stored there; None where there is none, or not as it was written, or for another question."""
    try:
        body = read_checksummed(path, key)
    except OSError:
        return None
    return None if body is None else Reply(**json.loads(body))


def _write(path: Path, key: str, answer: Reply) -> None:
    try:
        write_checksummed(path, key, json.dumps(answer._asdict()).encode())
    except OSError as problem:
        raise OutputError(
            f"{path.parent}: answers of the labelling model cannot be stored ({problem.strerror}); "
            "make room, or name another directory in the environment variable STRATALENS_CACHE"
        ) from None


def map_concurrently(function: Callable[[Item], Outcome], items: Iterable[Item], concurrency: int) -> Iterator[Outcome]:
    """Apply a function to items in so many threads at once, and yield the results in the order of the items.

    Items are taken only a little ahead of the results. When the consumer stops, or anything is raised, what has not
    started is dropped and what runs is waited for, save after Ctrl-C.
    """
    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="labels")
    pending: deque[Future[Outcome]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= AHEAD * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=not isinstance(sys.exception(), KeyboardInterrupt), cancel_futures=True)
