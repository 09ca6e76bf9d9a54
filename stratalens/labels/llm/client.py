"""The HTTP client of a labelling server: its address, its API key, and limits on the time and size of an answer."""

import os
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from stratalens.errors import LabelingError
from stratalens.labels.llm.chat import NoReply

KEY_VARIABLES = ("STRATALENS_API_KEY", "OPENAI_API_KEY")
"""Environment variables of the API key; the first one that is set is used."""

PLACEHOLDER_KEY = "none"
"""Sent if there is no API key: local servers need none, but the client requires one."""

MAX_RETRIES = 4

CONNECT_SECONDS = 10.0

MAX_BODY_BYTES = 8 * 2**20
"""`max_tokens` limits answers to far less, unless the server ignores it."""


def open_client(
    url: str,
    key: str,
    timeout_seconds: float,
    before_attempt: Callable[[object], None],
    on_response: Callable[[], None],
):
    """Open an `openai` client that limits the time and size of a whole answer; its own timeouts limit single reads.

    Args:
        url: address of the server.
        key: API key.
        timeout_seconds: for the server to begin its answer, and again to complete it.
        before_attempt: called before each attempt; it may raise to prevent it.
        on_response: called at each response.

    Raises:
        LabelingError: the package `openai` is missing or too old.
    """
    try:
        import httpx2
        import openai
    except ImportError:
        raise LabelingError(
            'the package openai is missing or too old; install it with `pip install "stratalens[openai]"`'
        ) from None

    class BoundedStream(httpx2.SyncByteStream):
        def __init__(self, stream):
            self._stream = stream

        def __iter__(self):
            deadline, size = time.monotonic() + timeout_seconds, 0
            for chunk in self._stream:
                size += len(chunk)
                if time.monotonic() > deadline:
                    raise NoReply(f"answer not complete within {timeout_seconds:g} s")
                if size > MAX_BODY_BYTES:
                    raise NoReply(f"answer larger than {MAX_BODY_BYTES // 2**20} MiB")
                yield chunk

        def close(self):
            self._stream.close()

    def bound_body(response):
        on_response()
        response.stream = BoundedStream(response.stream)

    timeout = openai.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
    hooks = {"request": [before_attempt], "response": [bound_body]}
    web = openai.DefaultHttpxClient(base_url=url, timeout=timeout, event_hooks=hooks)
    return openai.OpenAI(api_key=key, base_url=url, timeout=timeout, max_retries=MAX_RETRIES, http_client=web)


def base_url(address: str) -> str:
    """Return the address as the client needs it: without a trailing slash, and with `/v1` if it has no path.

    Raises:
        LabelingError: it is not an address, or holds a user name, password or query, which the message does not repeat.
    """
    if "@" in address or "?" in address or "#" in address:
        raise LabelingError(
            "the labelling address holds a user name, a password or a query; give only http(s)://host[:port][/path], "
            f"and the key in the environment variable {KEY_VARIABLES[0]}"
        )
    try:
        parts = urlsplit(address.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or " " in parts.netloc:
            raise ValueError
    except ValueError:
        raise LabelingError(f"{address}: not an address; write one such as http://localhost:8000/v1") from None
    path = re.sub(r"(/chat/completions|/models)?/*$", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def find_key(api_key: str | None) -> str | None:
    """Return `api_key`, else the key from the environment, else None.

    A key that a header cannot carry is refused here, because the HTTP library's error would repeat it.

    Raises:
        LabelingError: the key holds a character that no key has.
    """
    candidates = [api_key, *map(os.environ.get, KEY_VARIABLES)]
    key = next((candidate.strip() for candidate in candidates if candidate and candidate.strip()), None)
    if key is not None and not re.fullmatch(r"[!-~]+", key):
        raise LabelingError(f"the API key holds a character that no key has; set {KEY_VARIABLES[0]} again")
    return key
