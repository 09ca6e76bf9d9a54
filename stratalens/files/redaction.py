"""Remove credentials from addresses, paths and messages before they are printed or written."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import unquote

from stratalens.errors import StratalensError

MASK = "***"
_CHAIN_SEPARATOR = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
"""Separates the parts of a chained address such as `zip://a.txt::https://host/b.zip`."""
_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]*://|(?!hf:)[A-Za-z][A-Za-z0-9+.-]+:/(?!/)|(?<![:/\w])//(?!/))"
"""Begins an address; also `https:/`, as paths shorten it, and `//`. `hf:/data` is a dataset, `C:/data` a path."""
_ADDRESS_START = re.compile(_SCHEME)
_ADDRESS = re.compile(_SCHEME + r"[^\s'\"<>`]*[^\s'\"<>`:;,)]")
"""An address in a text; a mark at its end belongs to the sentence."""
_BROKEN_ADDRESS = re.compile(rf"({_SCHEME})[^\s/?#@:]*:(?!:|\d*(?:[\s/?#'\"<>`),;:.]|$))(?:.*@|\S*)", re.DOTALL)
"""An address whose password may contain white space or quotation marks: up to the last `@` of the text."""
_BARE_USER = re.compile(r"(?<![^\s'\"`=(,])(?!hf:)[^\s/@:'\"`]+:[^\s/@:'\"`]+@(?=[\w.-]*\w)")
"""`user:password@` of an address without a scheme."""
_PORT = re.compile(r"[^:]*(:\d*)?|\[[^]]*](:\d*)?")
_MIN_SECRET_CHARACTERS = 3
"""Shorter secrets are not masked: they protect nothing, and masking them would make the text unreadable."""
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}"
    r"|glpat-[\w-]{16,}|xox[a-z]-[\w-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]+\.[\w-]+)"
)
"""Keys and tokens of well-known services, by the way they begin."""
_LONG_WORD = re.compile(r"[A-Za-z0-9]{32,}")
_MIN_RANDOM_CHANGES = 0.4
"""A long word is taken for a key if this share of its neighbouring characters differ in class (capital, small, digit).

Of random letters and digits 62% do, of words written together about 25%; hashes in hexadecimal have no capitals.
"""


class _AddressParts(NamedTuple):
    """An address, split so that its secrets can be masked; None for a part that it does not have."""

    scheme: str
    userinfo: str | None
    host_and_path: str
    query: str | None
    fragment: str | None


def redacted(location: str) -> str:
    """Mask user, password, every value of the query and the fragment of an address, and keys in any location.

    An ordinary local path, the name of a file or model, and a hash in hexadecimal are unchanged.
    """
    masked = "::".join(_masked(part) for part in _CHAIN_SEPARATOR.split(location))
    return _without_keys(_BARE_USER.sub(f"{MASK}@", masked))


def redacted_settings(values: Mapping[str, object]) -> dict[str, object]:
    """Redact every text in settings, or in a record, whichever name it has, so that they may be written."""
    return {name: _redacted_value(value) for name, value in values.items()}


def without_secrets(text: str, *locations: str) -> str:
    """Mask secrets in a text such as an error message.

    Args:
        text: what is to be printed.
        locations: addresses with secrets that the text may repeat, whole or in part.
    """
    for secret in sorted({secret for location in locations for secret in _secrets(location)}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _without_addresses(text)


def as_printed(text: str, given: Iterable[str] = ()) -> str:
    """Mask secrets in a text that repeats what the user gave.

    Args:
        text: what is to be printed.
        given: words of the command line. Where the text repeats one of them, its end is known even if its password
            contains white space.
    """
    for word in given:
        for form in (word, word.partition("=")[2], str(PurePath(word))):
            shown = redacted(form)
            if shown != form:
                text = text.replace(form, shown)
    return _without_addresses(text)


@contextmanager
def without_secrets_in_errors(given: Iterable[object]) -> Iterator[None]:
    """Mask secrets in our errors that leave the block, and drop their causes, whose texts may hold them too.

    Args:
        given: what the caller passed; texts in it, and in lists of it, may have secrets.
    """
    try:
        yield
    except StratalensError as error:
        texts = [str(item) for value in given for item in (value if isinstance(value, list | tuple) else [value])]
        error.args = (as_printed(str(error), texts),)
        error.__cause__ = error.__context__ = None
        raise


def _without_addresses(text: str) -> str:
    """Mask the secrets of every address and every key in a text."""
    text = _ADDRESS.sub(lambda match: redacted(match[0]), text)
    text = _BROKEN_ADDRESS.sub(rf"\1{MASK}@", text)
    return _without_keys(_BARE_USER.sub(f"{MASK}@", text))


def _without_keys(text: str) -> str:
    text = _KEY.sub(MASK, text)
    return _LONG_WORD.sub(lambda match: MASK if _is_random(match[0]) else match[0], text)


def _is_random(word: str) -> bool:
    classes = [("0" if character.isdigit() else "A" if character.isupper() else "a") for character in word]
    changes = sum(before != after for before, after in pairwise(classes))
    return len(set(classes)) == 3 and changes >= _MIN_RANDOM_CHANGES * (len(word) - 1)


def _redacted_value(value: object) -> object:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: _redacted_value(item) for key, item in value.items()}
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
    scheme = _ADDRESS_START.match(location)
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
