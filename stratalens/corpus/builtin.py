"""The built-in domains: their texts and lexicons, and the general texts they are contrasted with."""

from pathlib import Path

from stratalens.errors import ConfigError
from stratalens.files.locations import DATA_DIRECTORY

BUILT_IN_DOMAINS = ("financial", "medical", "legal")


def text_file(name: str) -> Path:
    """Path of the jsonl file with the passages of a built-in domain, or of `general`."""
    return DATA_DIRECTORY / "texts" / f"{name}.jsonl"


def domain_files(domain: str, user_files: tuple[str, ...]) -> tuple[str, ...]:
    """Files of the domain side: the user's own if there are any, else the built-in file of that domain.

    Raises:
        ConfigError: the user names no files and the domain is not built in.
    """
    if user_files:
        return user_files
    if domain not in BUILT_IN_DOMAINS:
        raise ConfigError(
            f"unknown domain `{domain}`; built in are {', '.join(BUILT_IN_DOMAINS)}; "
            "for any other, give its texts with --domain_data PATH..."
        )
    return (str(text_file(domain)),)


def general_files(user_files: tuple[str, ...]) -> tuple[str, ...]:
    """Files of the general side: the user's own if there are any, else the built-in file."""
    return user_files or (str(text_file("general")),)


def lexicon_file(name: str) -> Path:
    """Path of the YAML file with the concepts of a built-in domain, or of `common` language."""
    return DATA_DIRECTORY / "lexicons" / f"{name}.yaml"
