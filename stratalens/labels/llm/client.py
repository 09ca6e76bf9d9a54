"""The HTTP client of a labelling server: its address, its key, and bounds on the time and the size of an answer."""

import os
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from stratalens.errors import LabelingError
from stratalens.labels.llm.chat import NoReply

KEY_VARIABLES = ("STRATALENS_API_KEY", "OPENAI_API_KEY")

PLACEHOLDER_KEY = "none"
"""Local servers ask for no key, but the client insists on sending one."""

MAX_RETRIES = 4

CONNECT_SECONDS = 10.0

MAX_BODY_BYTES = 8 * 2**20
"""Bytes; `max_tokens` bounds answers long before this, unless the server ignores it."""


def open_client(
    url: str, key: str, timeout_seconds: float, before_attempt: Callable[[object], None], hear: Callable[[], None]
):
    """The `openai` client with limits on the time and the size of a body: its own timeouts bound only single reads."""
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
        hear()
        response.stream = BoundedStream(response.stream)

    timeout = openai.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
    hooks = {"request": [before_attempt], "response": [bound_body]}
    web = openai.DefaultHttpxClient(base_url=url, timeout=timeout, event_hooks=hooks)
    return openai.OpenAI(api_key=key, base_url=url, timeout=timeout, max_retries=MAX_RETRIES, http_client=web)


def base_url(given: str) -> str:
    """The address as the client wants it: without a trailing slash, with `/v1` where no path was given.

    Raises:
        LabelingError: it is not an address; the message does not repeat what may be a secret in it.
    """
    if "@" in given or "?" in given or "#" in given:
        raise LabelingError(
            "the labelling address holds a user name, a password or a query; give only http(s)://host[:port][/path], "
            f"and the key in the environment variable {KEY_VARIABLES[0]}"
        )
    try:
        parts = urlsplit(given.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or " " in parts.netloc:
            raise ValueError
    except ValueError:
        raise LabelingError(f"{given}: not an address; write one such as http://localhost:8000/v1") from None
    path = re.sub(r"(/chat/completions|/models)?/*$", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def find_key(given: str | None) -> str | None:
    """The key as a header can carry it; an error of the HTTP library would repeat one that cannot be.

    Raises:
        LabelingError: it holds a character that no key has.
    """
    candidates = [given, *map(os.environ.get, KEY_VARIABLES)]
    key = next((candidate.strip() for candidate in candidates if candidate and candidate.strip()), None)
    if key is not None and not re.fullmatch(r"[!-~]+", key):
        raise LabelingError(f"the API key holds a character that no key has; set {KEY_VARIABLES[0]} again")
    return key
