"""Which API key a labelling server gets: its own goes to any server that the user names, OpenAI's only to OpenAI."""

import os
import re

from stratalens.errors import LabelingError
from stratalens.labels.llm.address import KEY_VARIABLE, is_openai

OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable of a key that other programs use too; a server that is not OpenAI's does not get it."""

HEADER_VARIABLES = ("OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""Environment variables that the client makes headers from, whichever server it talks to."""


def find_key(url: str, api_key: str | None) -> str | None:
    """Return `api_key`, else the key from the environment for a server at this address, else None.

    A key that a header cannot carry is refused here, because the HTTP library's error would repeat it.

    Raises:
        LabelingError: the key holds a character that no key has.
    """
    variables = (KEY_VARIABLE, OPENAI_KEY_VARIABLE) if is_openai(url) else (KEY_VARIABLE,)
    candidates = [api_key, *map(os.environ.get, variables)]
    key = next((candidate.strip() for candidate in candidates if candidate and candidate.strip()), None)
    if key is not None and not re.fullmatch(r"[!-~]+", key):
        raise LabelingError(f"the API key holds a character that no key has; set {KEY_VARIABLE} again")
    return key


def how_to_set_a_key(url: str) -> str:
    """Say which environment variable takes the key of a server, and why OpenAI's key, if there is one, is not sent."""
    withheld = bool(os.environ.get(OPENAI_KEY_VARIABLE)) and not is_openai(url)
    reason = f" ({OPENAI_KEY_VARIABLE} is sent only to https://api.openai.com)" if withheld else ""
    return f"set the environment variable {KEY_VARIABLE}{reason}"


def require_sendable_headers() -> None:
    """Refuse variables that the client cannot make headers from, because its error would repeat them.

    Raises:
        LabelingError: one holds a character that no header has.
    """
    for name in HEADER_VARIABLES:
        if not os.environ.get(name, "").isascii():
            raise LabelingError(
                f"the environment variable {name} holds a character that no header has; correct or unset it"
            )
