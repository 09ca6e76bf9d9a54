"""The address of a labelling server, and whose server it is."""

import logging
import re
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from stratalens.errors import LabelingError
from stratalens.files.redaction import redacted
from stratalens.labels.llm.masking import MAX_SHOWN_CHARACTERS

KEY_VARIABLE = "STRATALENS_API_KEY"
"""Environment variable of the API key for `--labeling_endpoint`, wherever that is."""

SECRET_NAME = re.compile(r"key|token|secret|sig|auth|pass|cred|code", re.IGNORECASE)
"""Names of values in a query that are secrets."""
RANDOM_VALUE = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_+/=]{20,}")
"""A value that looks like a key, whatever its name; those with `-` may be words, such as a name of a deployment."""

HTTP_LOGGER = "httpx2"
"""Logger of the HTTP library, which writes the whole address of every request."""

OPENAI_ADDRESS = re.compile(r"https://([a-z]{2}\.)?api\.openai\.com(:[0-9]+)?(/.*)?", re.IGNORECASE)
"""OpenAI's host and those of its regions, such as `eu.api.openai.com`. Without encryption anyone may be it."""


def base_url(address: str) -> str:
    """Return the address as the client needs it: without a trailing slash, and with `/v1` if it has no path.

    A query, such as `?api-version=2024-06-01`, is kept as it is.

    Raises:
        LabelingError: it is not an address, or holds a user name, password or fragment, which the message does not
            repeat.
    """
    if "@" in address.partition("?")[0] or "#" in address:
        raise LabelingError(
            "the labelling address holds a user name, a password or a `#`; give only "
            f"http(s)://host[:port][/path][?query], and the key in the environment variable {KEY_VARIABLE}"
        )
    try:
        parts = urlsplit(address.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or " " in parts.netloc:
            raise ValueError
        if not re.fullmatch(r"[!-~]*", parts.query):
            raise ValueError
        if parts.hostname.isascii():
            parts.hostname.encode("idna")  # what the socket does; raises for an empty or overlong part of the name
    except ValueError:
        raise not_an_address(address) from None
    path = re.sub(r"(/chat/completions|/models)?/*$", "", parts.path.rstrip("/"))
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}{query}"


def not_an_address(given: str) -> LabelingError:
    """Return the error for an address of no server."""
    shown = redacted(given)[:MAX_SHOWN_CHARACTERS].encode(errors="replace").decode()
    return LabelingError(f"{shown}: not an address; write one such as http://localhost:8000/v1")


def secrets_in(url: str) -> list[str]:
    """Values in the query of an address that are keys, by their name or by their look, or have no name."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    named = [value for name, value in pairs if value and (SECRET_NAME.search(name) or RANDOM_VALUE.fullmatch(value))]
    return [*named, *(name for name, value in pairs if not value)]


def keep_queries_out_of_logs() -> None:
    """Mask the values of queries in what the HTTP library logs, at whichever level."""
    logger = logging.getLogger(HTTP_LOGGER)
    if _mask_addresses not in logger.filters:
        logger.addFilter(_mask_addresses)


def _mask_addresses(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(redacted(str(one)) if "://" in str(one) else one for one in record.args)
    return True


def origin(url: str) -> str:
    """Return scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_openai(url: str) -> bool:
    """Whether a server at this address, as `base_url` returns it, is OpenAI's."""
    return OPENAI_ADDRESS.fullmatch(url) is not None


def is_azure(url: str) -> bool:
    """Whether an address has the path of a deployment at Azure, where the key stands in a header of its own."""
    return "/openai/deployments/" in urlsplit(url).path


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
