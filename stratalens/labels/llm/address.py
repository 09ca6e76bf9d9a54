"""The address of a labelling server, and whose server it is."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from stratalens.errors import LabelingError
from stratalens.files.redaction import redacted
from stratalens.labels.llm.masking import MAX_SHOWN_CHARACTERS

KEY_VARIABLE = "STRATALENS_API_KEY"
"""Environment variable of the API key for `--labeling_endpoint`, wherever that is."""

OPENAI_ADDRESS = re.compile(r"https://([a-z]{2}\.)?api\.openai\.com(:[0-9]+)?(/.*)?", re.IGNORECASE)
"""OpenAI's host and those of its regions, such as `eu.api.openai.com`. Without encryption anyone may be it."""


def base_url(address: str) -> str:
    """Return the address as the client needs it: without a trailing slash, and with `/v1` if it has no path.

    Raises:
        LabelingError: it is not an address, or holds a user name, password or query, which the message does not repeat.
    """
    if "@" in address or "?" in address or "#" in address:
        raise LabelingError(
            "the labelling address holds a user name, a password or a query; give only http(s)://host[:port][/path], "
            f"and the key in the environment variable {KEY_VARIABLE}"
        )
    try:
        parts = urlsplit(address.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or " " in parts.netloc:
            raise ValueError
        if parts.hostname.isascii():
            parts.hostname.encode("idna")  # what the socket does; raises for an empty or overlong part of the name
    except ValueError:
        raise not_an_address(address) from None
    path = re.sub(r"(/chat/completions|/models)?/*$", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def not_an_address(given: str) -> LabelingError:
    """Return the error for an address of no server."""
    shown = redacted(given)[:MAX_SHOWN_CHARACTERS].encode(errors="replace").decode()
    return LabelingError(f"{shown}: not an address; write one such as http://localhost:8000/v1")


def origin(url: str) -> str:
    """Return scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_openai(url: str) -> bool:
    """Whether a server at this address, as `base_url` returns it, is OpenAI's."""
    return OPENAI_ADDRESS.fullmatch(url) is not None


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_readable_on_the_way(url: str) -> bool:
    """Whether others can read what is sent to this address."""
    return urlsplit(url).scheme == "http" and not is_loopback(url)
