"""Remove credentials from addresses before they are printed or written."""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

MASK = "***"
_CHAIN_SEPARATOR = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
"""Separates the parts of a chained address such as `zip://a.txt::https://host/b.zip`."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_PORT = re.compile(r"[^:]*(:\d*)?|\[[^]]*](:\d*)?")
_MIN_SECRET_CHARACTERS = 3
"""Shorter secrets are not masked: they protect nothing, and masking them would make the text unreadable."""


class _AddressParts(NamedTuple):
    """An address, split so that its secrets can be masked; None for a part that it does not have."""

    scheme: str
    userinfo: str | None
    host_and_path: str
    query: str | None
    fragment: str | None


def redacted(location: str) -> str:
    """Mask user, password, every value of the query and the fragment of an address; a local path is unchanged."""
    return "::".join(_masked(part) for part in _CHAIN_SEPARATOR.split(location))


def redacted_settings(values: Mapping[str, object]) -> dict[str, object]:
    """Redact every address in the settings, whichever option it belongs to, so that they may be recorded."""
    return {name: _redacted_value(value) for name, value in values.items()}


def without_secrets(text: str, location: str) -> str:
    """Mask the secrets of the location, and of every address in the text, in a text such as another library's error."""
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
    return parts.scheme + user + parts.host_and_path + query + ("" if parts.fragment is None else f"#{MASK}")


def _masked_pair(match: re.Match[str]) -> str:
    name, equals, _ = match[0].partition("=")
    return f"{name}={MASK}" if equals else MASK


def _split(location: str) -> _AddressParts | None:
    """Split an address into its parts; None where the location is not an address.

    A password may contain `/`, `?`, `#` or `@` that should have been escaped: where there is a user, or the port of the
    host is not a number, everything up to the last `@` is treated as user and password.
    """
    scheme = _SCHEME.match(location)
    if scheme is None:
        return None
    rest = location[scheme.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    userinfo_end = rest.rfind("@") if "@" in authority or _PORT.fullmatch(authority) is None else -1
    userinfo, rest = (None, rest) if userinfo_end < 0 else (rest[:userinfo_end], rest[userinfo_end + 1 :])
    rest, hash_sign, fragment = rest.partition("#")
    host_and_path, question_mark, query = rest.partition("?")
    return _AddressParts(
        scheme[0], userinfo, host_and_path, query if question_mark else None, fragment if hash_sign else None
    )


def _secrets(location: str) -> set[str]:
    """Collect the credentials in an address, as they are written there and unescaped."""
    secrets: set[str] = set()
    for parts in filter(None, map(_split, _CHAIN_SEPARATOR.split(location))):
        secrets |= {parts.userinfo or "", *(parts.userinfo or "").split(":", 1), parts.fragment or ""}
        secrets |= {pair.partition("=")[2] or pair for pair in re.split("[&;]", parts.query or "")}
    return {form for secret in secrets for form in (secret, unquote(secret)) if len(form) >= _MIN_SECRET_CHARACTERS}
