"""Errors a user can cause, and what each means.

    StratalensError              base class; the command line prints its message on one line and exits with 2
    ├── ConfigError              an option or a configuration file is wrong
    ├── CorpusError              text is missing, unreadable or unusable
    ├── ModelError               the base model is missing, incomplete or does not fit the request
    ├── CheckpointError          a sparse autoencoder is missing, corrupt or of an unknown kind
    │   └── MismatchError        a sparse autoencoder does not belong to this model or layer
    ├── CapacityError            there is not enough memory
    ├── LabelingError            the labelling model cannot be used
    └── OutputError              results cannot be written

Every message says what was found, what was expected and what to do. A broken invariant is an assert, not one of these.
"""

import re

CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Replace control characters by their escapes, so that text from files and servers cannot control a terminal."""
    return CONTROL_CHARACTERS.sub(lambda match: repr(match[0])[1:-1], text)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, such as `1 row` and `1,200 rows`; the plural ends in s unless it is given."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"


class StratalensError(Exception):
    """Base class of all errors that a user can cause and fix."""


class ConfigError(StratalensError):
    """An option or a configuration file is wrong."""


class CorpusError(StratalensError):
    """Text is missing, unreadable or unusable."""


class ModelError(StratalensError):
    """The base model is missing, incomplete or does not fit the request."""


class CheckpointError(StratalensError):
    """A sparse autoencoder is missing, corrupt or of an unknown kind."""


class MismatchError(CheckpointError):
    """A sparse autoencoder does not belong to this model or layer."""


class CapacityError(StratalensError):
    """There is not enough memory for the model or for one passage."""


class OutputError(StratalensError):
    """Results cannot be written."""


class LabelingError(StratalensError):
    """The labelling model cannot be used: no such address or model, wrong key, missing package."""
