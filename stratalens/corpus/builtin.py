"""Domains whose texts ship with the package, and the general text they are contrasted with."""

from pathlib import Path

from stratalens.errors import ConfigError
from stratalens.files.locations import DATA_DIRECTORY

BUILT_IN_DOMAINS = ("financial", "medical", "legal")


def text_file(name: str) -> Path:
    """File with the passages of a built-in domain, or of `general`."""
    return DATA_DIRECTORY / "texts" / f"{name}.jsonl"


def domain_files(domain: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Files of the domain side: the user's own, else the built-in ones of that name.

    Raises:
        ConfigError: no files were given and the domain is not built in.
    """
    if given:
        return given
    if domain not in BUILT_IN_DOMAINS:
        raise ConfigError(
            f"unknown domain `{domain}`; built in are {', '.join(BUILT_IN_DOMAINS)}, "
            "any other needs its texts: --domain_data PATH..."
        )
    return (str(text_file(domain)),)


def general_files(given: tuple[str, ...]) -> tuple[str, ...]:
    """Files of the general side: the user's own, else the built-in ones."""
    return given or (str(text_file("general")),)


def lexicon_file(name: str) -> Path:
    """File with the concepts of a built-in domain, or of `common` language."""
    return DATA_DIRECTORY / "lexicons" / f"{name}.yaml"
