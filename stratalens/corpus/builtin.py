"""The built-in domains, and the general texts that domains are contrasted with."""

from pathlib import Path

from stratalens.errors import ConfigError
from stratalens.files.locations import DATA_DIRECTORY

BUILT_IN_DOMAINS = ("financial", "medical", "legal")
GENERAL = "general"
"""The folder of the general texts, and of the concepts of ordinary language."""


def built_in_folder(name: str) -> Path:
    """Folder of a built-in domain, in the form of those that users make, or of `GENERAL`."""
    return DATA_DIRECTORY / (name if name == GENERAL else f"domains/{name}")


def text_file(name: str) -> Path:
    """Path of the jsonl file with the documents of a built-in domain, or of `GENERAL`.

    Raises:
        ConfigError: the domain is not built in.
    """
    if name not in (*BUILT_IN_DOMAINS, GENERAL):
        raise ConfigError(
            f"unknown domain `{name}`; built in are {', '.join(BUILT_IN_DOMAINS)}; "
            "for any other, give its texts with --domain_data PATH..., or its folder with --domain PATH"
        )
    return built_in_folder(name) / "texts.jsonl"


def lexicon_file(name: str) -> Path:
    """Path of the YAML file with the concepts of a built-in domain, or of ordinary language (`GENERAL`)."""
    return built_in_folder(name) / "lexicon.yaml"


def senses_file(name: str) -> Path:
    """Path of the jsonl file with the sentence pairs of a built-in domain."""
    return built_in_folder(name) / "senses.jsonl"
