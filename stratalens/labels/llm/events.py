"""The events of a streamed answer, and the JSON in bodies of all kinds."""

import re
from collections.abc import Iterator
from itertools import chain

from pydantic_core import from_json

from stratalens.labels.llm.chat import NoReply

MAX_EVENTS = 200_000
"""Of a streamed answer, which has about one for each token."""
_BEFORE_BODY = re.compile(rb"\A(?:\xef\xbb\xbf)?(?:\s++|:[^\r\n]*+(?:[\r\n]|\Z))*+")
"""A byte order mark, and the blank lines and comments by which servers keep a connection open."""
_ESCAPE = re.compile(
    rb"\\(?:u(d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|u(d[89a-f][0-9a-f]{2})|.)", re.IGNORECASE | re.DOTALL
)


def is_stream(content_type: str) -> bool:
    """Whether a body is streamed: as events, or as lines of JSON."""
    return content_type.split(";")[0].strip().lower() in ("text/event-stream", "application/x-ndjson")


def is_streamed(body: bytes, content_type: str) -> bool:
    """Whether a body is a stream, whatever its type says; a single JSON value never is."""
    begins = body_of(body)[:6]
    if begins.startswith(b"{"):
        return (is_stream(content_type) or b"}\n{" in body) and not _is_json(body)
    return is_stream(content_type) or begins.startswith((b"data:", b"event:", b"id:", b"retry:"))


def body_of(body: bytes) -> bytes:
    """A body without what stands before it to keep the connection open."""
    return body[_BEFORE_BODY.match(body).end() :]  # pyright: ignore[reportOptionalMemberAccess] - it matches any body


def json_of(raw: bytes) -> object:
    """Read JSON; half of a surrogate pair, which is no character, becomes U+FFFD.

    Raises:
        ValueError: it is none.
    """
    try:
        return from_json(raw)
    except ValueError:
        return from_json(_ESCAPE.sub(lambda escape: b"\\ufffd" if escape[2] else escape[0], raw))


def _is_json(body: bytes) -> bool:
    try:
        json_of(body_of(body))
    except ValueError:
        return False
    return True


def events_of(body: bytes) -> Iterator[bytes]:
    """Yield what each event of a stream holds: the `data` up to an empty line, or a line of JSON.

    Raises:
        NoReply: there are too many.
    """
    data: list[bytes] = []
    number = 0
    for line in chain(body_of(body).splitlines(), [b""]):
        name, _, value = line.partition(b":")
        if name in (b"data", b"error"):
            data.append(value.strip())
        elif line.startswith(b"{"):
            data.append(line)
        elif not line.strip():
            for event in _of_one_block(data):
                number += 1
                if number > MAX_EVENTS:
                    raise NoReply(f"answer of more than {MAX_EVENTS:,} events")
                yield event
            data = []


def _of_one_block(data: list[bytes]) -> list[bytes]:
    """The events of a block: by the standard one, perhaps of several lines; some servers put no empty line between."""
    lines = [line for line in data if line and line != b"[DONE]"]
    several = len(lines) > 1 and all(line.startswith(b"{") and line.endswith(b"}") for line in lines)
    return lines if several or not lines else [b"\n".join(lines)]
