"""The HTTP client of a labelling server: what it sends, and what it accepts as an answer."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urljoin

from stratalens.errors import LabelingError, StratalensError
from stratalens.files.redaction import redacted
from stratalens.labels.llm.address import (
    is_azure,
    is_loopback,
    is_openai,
    keep_queries_out_of_logs,
    not_an_address,
    origin,
)
from stratalens.labels.llm.bodies import error_status
from stratalens.labels.llm.chat import MORE_TIME, NoReply
from stratalens.labels.llm.deadline import within
from stratalens.labels.llm.events import is_stream
from stratalens.labels.llm.keys import require_sendable_headers
from stratalens.labels.llm.masking import KeyMask
from stratalens.models.hub import is_raised_by_library

PLACEHOLDER_KEY = "none"
"""Sent if there is no API key: local servers need none, but the client requires one."""

MAX_RETRIES = 4

CONNECT_SECONDS = 10.0

MAX_BODY_BYTES = 8 * 2**20
"""`max_tokens` limits answers to far less, unless the server ignores it."""
MAX_STREAM_BYTES = 32 * 2**20
"""A streamed answer repeats some 200 bytes for each token."""

SENT_HEADERS = frozenset(
    {"accept", "authorization", "connection", "content-length", "content-type", "host", "user-agent"}
    | {"x-stainless-raw-response"}
)
"""Headers of a request. The client would add others, about this machine and from `OPENAI_CUSTOM_HEADERS`; the last
of these tells it to return an answer unread."""

SUCCESS = 200
SENT_WITH_SUCCESS = "stratalens_sent_with_success"
"""Extension of a response whose error came with the status of success."""

PAUSE_HEADERS = ("retry-after", "retry-after-ms")
PLAIN_PAUSE = re.compile(
    r"[0-9]{1,10}(\.[0-9]{1,10})?|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT", re.ASCII
)
"""A number of seconds, or a date as HTTP writes it; the client computes with whatever else it can read as a date."""

OPENAI_HEADERS = frozenset({"openai-organization", "openai-project"})
"""Headers from `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID`, for OpenAI's own servers."""


def open_client(
    url: str,
    key: str | None,
    mask: KeyMask,
    timeout_seconds: float,
    before_attempt: Callable[[], None],
    on_response: Callable[[], None],
):
    """Open an `openai` client that limits the time and size of a whole answer; its own timeouts limit single reads.

    Args:
        url: address of the server; what stands behind `?` in it goes with every request.
        key: API key; None if there is none.
        mask: of the key.
        timeout_seconds: for the server to begin its answer, and again to complete it.
        before_attempt: called before each attempt; it may raise to prevent it.
        on_response: called at each response.

    Raises:
        LabelingError: the package `openai` is missing or too old, the address is none, or the environment names what
            cannot be used. Later, a request raises it where the server redirects or packs its answer.
    """
    try:
        import httpx2
        import openai
    except ImportError:
        raise LabelingError(
            'the package openai is missing or too old; install it with `pip install "stratalens[openai]"`'
        ) from None

    def prepare(request: Any) -> None:
        _limit_headers(request, url, key or PLACEHOLDER_KEY)
        request.url = request.url.copy_with(query=query.encode() or None)

    def inspect(response: Any) -> None:
        on_response()
        _refuse_redirect(response, url, mask)
        _refuse_packed(response, url, mask)
        _limit_pause(response)
        response.encoding = "utf-8"  # else the server's `charset` picks any of Python's codecs, some of them slow
        response.stream = _bounded(response, timeout_seconds)

    require_sendable_headers()
    url, _, query = url.partition("?")
    try:
        httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        raise not_an_address(url) from None
    keep_queries_out_of_logs()
    timeout = openai.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
    web = _open_connections(url, timeout, before_attempt, {"request": [prepare], "response": [inspect]})
    return openai.OpenAI(
        api_key=key or PLACEHOLDER_KEY, base_url=url, timeout=timeout, max_retries=MAX_RETRIES, http_client=web
    )


@contextmanager
def client_failures() -> Iterator[None]:
    """Turn what the client's libraries raise inside the block into `NoReply`, save the client's own errors.

    Raises:
        NoReply: an answer made a library fail.
    """
    import openai

    try:
        yield
    except (openai.OpenAIError, StratalensError, NoReply):
        raise
    except Exception as problem:
        if not is_raised_by_library(problem):
            raise
        raise NoReply(f"the client failed ({type(problem).__name__})") from None


def _open_connections(
    url: str, timeout: Any, before_attempt: Callable[[], None], hooks: Mapping[str, list[Callable[..., Any]]]
):
    """Open the client's HTTP client, which follows no redirect and uses no proxy to this machine.

    Its own timeouts begin anew with each byte that arrives; whoever sends one a minute would hold it for ever.
    """
    import httpx2
    import openai

    longest = timeout.connect + 2 * timeout.read

    class BoundedClient(openai.DefaultHttpxClient):
        def send(self, request: Any, **options: Any) -> Any:
            before_attempt()
            try:
                response = within(longest, lambda: super(BoundedClient, self).send(request, **options))
            except TimeoutError:
                raise httpx2.ReadTimeout(f"no whole answer within {longest:g} s", request=request) from None
            _uncover_error(response)
            return response

    past_proxies = {"http://": None, "https://": None} if is_loopback(url) else None
    try:
        return BoundedClient(
            base_url=url, timeout=timeout, event_hooks=hooks, follow_redirects=False, mounts=past_proxies
        )
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as problem:  # its text may hold a password
        raise LabelingError(
            f"the proxy or the certificates that the environment names cannot be used ({type(problem).__name__}); "
            "correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE"
        ) from None


def _limit_headers(request: Any, url: str, key: str) -> None:
    """Remove what a server need not know, ask for an answer that is not packed, and set our key and no other."""
    allowed = SENT_HEADERS | OPENAI_HEADERS if is_openai(url) else SENT_HEADERS
    for name in set(request.headers) - allowed:
        del request.headers[name]
    request.headers["Accept-Encoding"] = "identity"
    request.headers["Authorization"] = f"Bearer {key}"
    if key != PLACEHOLDER_KEY and is_azure(url):
        request.headers["api-key"] = key


def _refuse_redirect(response: Any, url: str, mask: KeyMask) -> None:
    if not response.has_redirect_location:
        return
    target = response.headers["location"]
    with suppress(ValueError):  # what is not an address is shown as it is
        target = urljoin(str(response.url), target)
    raise LabelingError(
        f"{origin(url)} redirects to {mask.one_line(redacted(target))} ({response.status_code}), which is not "
        "followed; if you trust that address, give it with --labeling_endpoint"
    )


def _refuse_packed(response: Any, url: str, mask: KeyMask) -> None:
    """Refuse a body that would grow when unpacked: a thousand times is easily done."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise LabelingError(
            f"{origin(url)} packs its answer (Content-Encoding: {mask.one_line(encoding)}) though the request asks "
            "for plain text; switch compression off at the server or the proxy before it"
        )


def _uncover_error(response: Any) -> None:
    """Give an error that came with the status of success the status that it should have had."""
    if response.status_code == SUCCESS:
        status = error_status(response.content, response.headers.get("content-type", ""))
        if status is not None:
            response.status_code = status
            response.extensions[SENT_WITH_SUCCESS] = True


def _limit_pause(response: Any) -> None:
    """Leave only a pause that the client can compute with; it has its own for a server that asks for none."""
    for name in PAUSE_HEADERS:
        if not PLAIN_PAUSE.fullmatch(response.headers.get(name, "0")):
            del response.headers[name]


def _bounded(response: Any, timeout_seconds: float):
    """Return the stream of a response that raises `NoReply` where its body takes too long or is too large."""
    import httpx2

    stream = response.stream
    largest = MAX_STREAM_BYTES if is_stream(response.headers.get("content-type", "")) else MAX_BODY_BYTES

    class BoundedStream(httpx2.SyncByteStream):
        def __iter__(self):
            deadline, size = time.monotonic() + timeout_seconds, 0
            for chunk in stream:
                size += len(chunk)
                if time.monotonic() > deadline:
                    raise NoReply(f"answer not complete within {timeout_seconds:g} s", MORE_TIME)
                if size > largest:
                    raise NoReply(f"answer larger than {largest // 2**20} MiB")
                yield chunk

        def close(self):
            stream.close()

    return BoundedStream()
