"""Validate options into a configuration, or raise an error of one line that names every wrong option."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError
from stratalens.files.redaction import as_printed, redacted

MAX_VALUE_CHARACTERS = 200
"""Longer option names and values are cut in error messages."""

Options = TypeVar("Options", bound=BaseModel)


def validated(kind: type[Options], options: Mapping[str, object]) -> Options:
    """Validate options into a configuration.

    Args:
        kind: the class of the configuration.
        options: name -> value; options that are left out take their defaults.

    Raises:
        ConfigError: a text in them is not UTF-8; or an option is unknown or its value is out of range, then the message
            names every such option.
    """
    _require_utf_8(options)
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(detail) for detail in error.errors())) from None


def _require_utf_8(value: object) -> None:
    """Check every text in options, names included: tables, the validation and the terminal accept no others."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _require_utf_8(name)
            _require_utf_8(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_utf_8(inner)
    elif isinstance(value, str | Path):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            shown = ascii(redacted(str(value)))[:MAX_VALUE_CHARACTERS]
            raise ConfigError(f"the name {shown} is not UTF-8; rename it, or choose another") from None


def _describe(detail) -> str:
    """Turn one of pydantic's error details into a message of one line."""
    name = redacted(str(detail["loc"][0])) if detail["loc"] else ""
    message = as_printed(str(detail["msg"]).removeprefix("Value error, "))
    if detail["type"] == "extra_forbidden":
        return f"unknown option `{name[:MAX_VALUE_CHARACTERS]}`"
    message = message[0].lower() + message[1:]
    return f"{name}: {message} (got {_shortened(detail['input'])})" if name else message


def _shortened(value: object) -> str:
    """Write a value for an error message, without credentials; a long one is cut."""
    try:
        text = repr(redacted(value)) if isinstance(value, str) else as_printed(repr(value))
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}..."


def make_config(**options: object) -> RunConfig:
    """Validate the options of an analysis; see `validated`."""
    return validated(RunConfig, options)
