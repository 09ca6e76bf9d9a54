"""From options as they were given to a configuration, or to one line that names what is wrong."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError

MAX_SHOWN_CHARACTERS = 200

Options = TypeVar("Options", bound=BaseModel)


def validated(kind: type[Options], options: Mapping[str, object]) -> Options:
    """Validate options into a configuration.

    Raises:
        ConfigError: an option is unknown or its value is out of range; the message names it.
    """
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(detail) for detail in error.errors())) from None


def _describe(detail) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"unknown option `{name[:MAX_SHOWN_CHARACTERS]}`"
    message = message[0].lower() + message[1:]
    return f"{name}: {message} (got {_shortened(detail['input'])})" if name else message


def _shortened(value: object) -> str:
    """A value as a complaint shows it, however long it is."""
    try:
        shown = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return shown if len(shown) <= MAX_SHOWN_CHARACTERS else f"{shown[:MAX_SHOWN_CHARACTERS]}..."


def make_config(**options: object) -> RunConfig:
    """Validate the options of an analysis; see `validated`."""
    return validated(RunConfig, options)
