"""Addresses without the credentials in them, for everything that is printed or written."""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

MASK = "***"
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
"""Between the parts of a chained address such as `zip://a.txt::https://host/b.zip`."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_PORT = re.compile(r"[^:]*(:\d*)?|\[[^]]*](:\d*)?")
_SHORTEST_SECRET = 3
"""Characters; taking shorter ones out of a text would leave nothing of it, and they protect nothing."""


class _Parts(NamedTuple):
    scheme: str
    userinfo: str | None
    place: str
    query: str | None
    fragment: str | None


def redacted(location: str) -> str:
    """The location with user, password, every value of its query and its fragment masked; a local path as it is."""
    return "::".join(_masked(part) for part in _CHAIN.split(location))


def redacted_settings(values: Mapping[str, object]) -> dict[str, object]:
    """Settings as they may be recorded: every address among them redacted, whichever option holds it."""
    return {name: _redacted_value(value) for name, value in values.items()}


def without_secrets(text: str, location: str) -> str:
    """A text of another program, such as an error, without the secrets of the location or of any address in it."""
    for secret in sorted(_secrets(location), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _ADDRESS.sub(lambda match: redacted(match[0]), text)


def _redacted_value(value: object) -> object:
    if isinstance(value, str):
        return redacted(value)
    return [_redacted_value(item) for item in value] if isinstance(value, list | tuple) else value


def _masked(location: str) -> str:
    parts = _split(location)
    if parts is None:
        return location
    user = "" if parts.userinfo is None else f"{MASK}@"
    query = "" if parts.query is None else "?" + re.sub(r"[^&;]+", _masked_pair, parts.query)
    return parts.scheme + user + parts.place + query + ("" if parts.fragment is None else f"#{MASK}")


def _masked_pair(match: re.Match[str]) -> str:
    name, equals, _ = match[0].partition("=")
    return f"{name}={MASK}" if equals else MASK


def _split(location: str) -> _Parts | None:
    """The parts of an address; None for what is none.

    A password may hold `/`, `?`, `#` or `@` that should have been escaped: where there is a user, or the port of the
    host is no number, everything up to the last `@` is taken for user and password.
    """
    scheme = _SCHEME.match(location)
    if scheme is None:
        return None
    rest = location[scheme.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    until = rest.rfind("@") if "@" in authority or _PORT.fullmatch(authority) is None else -1
    userinfo, rest = (None, rest) if until < 0 else (rest[:until], rest[until + 1 :])
    rest, hash_sign, fragment = rest.partition("#")
    place, question_mark, query = rest.partition("?")
    return _Parts(scheme[0], userinfo, place, query if question_mark else None, fragment if hash_sign else None)


def _secrets(location: str) -> set[str]:
    found: set[str] = set()
    for parts in filter(None, map(_split, _CHAIN.split(location))):
        found |= {parts.userinfo or "", *(parts.userinfo or "").split(":", 1), parts.fragment or ""}
        found |= {pair.partition("=")[2] or pair for pair in re.split("[&;]", parts.query or "")}
    return {form for secret in found for form in (secret, unquote(secret)) if len(form) >= _SHORTEST_SECRET}
