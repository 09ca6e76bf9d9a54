"""A domain as data: texts, their kinds, a lexicon and sentence pairs in a folder, which `--domain PATH` names."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stratalens.config.result_options import as_words
from stratalens.errors import ConfigError
from stratalens.files.locations import user_path
from stratalens.files.plain_yaml import read_yaml
from stratalens.files.redaction import redacted

DOMAIN_FILE = "domain.yaml"
MAX_DOMAIN_BYTES = 1 << 20
_BY_CONVENTION = {"domain_data": "texts", "general_data": "general", "lexicon": "lexicon", "senses": "senses"}
"""Option -> file or folder in the domain's folder that gives it where the YAML does not; endings do not matter."""
_OPTION_OF = {"texts": "domain_data", "general": "general_data"}
"""Entry of the YAML -> option, where the names differ."""


class DomainFile(BaseModel):
    """The content of a `domain.yaml`; paths are relative to its folder and stay inside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    """Names files and columns. Default: the name of the folder, or of a file that is not called `domain.yaml`."""
    description: str = ""
    """What the domain is, in one line."""
    texts: str | list[str] = []
    """The domain's texts, in the forms of `--domain_data`."""
    general: str | list[str] = []
    """General texts of the same kinds. Default: the built-in ones."""
    pair: list[list[str]] = []
    """Texts of both sides by kind, in the form of `--pair`, in place of `texts` and `general`."""
    lexicon: str | list[str] = []
    """Concepts and their terms, in the form of `--lexicon`."""
    senses: str | list[str] = []
    """Sentence pairs in which a word of the domain has another sense, in the form of `--senses`."""
    text_column: str | list[str] | None = None
    id_column: str | None = None
    kind_column: str | None = None
    source_column: str | None = None


def names_domain_file(domain: str) -> bool:
    """Whether a value of `--domain` is a path rather than a name."""
    return os.sep in domain or domain in (".", "..", "~") or domain.lower().endswith((".yaml", ".yml"))


def read_domain(path: str | Path) -> tuple[DomainFile, dict[str, object]]:
    """Read a domain.

    Args:
        path: its folder, or its YAML file.

    Returns:
        What the file says, and the options of a run that follow from it, with `domain` and absolute paths.

    Raises:
        ConfigError: there is no such folder or file, it describes no domain, or a path in it leaves the folder.
    """
    given = user_path(str(path))
    file = given / DOMAIN_FILE if given.is_dir() else given
    folder, owns_folder = file.parent.resolve(), file.name == DOMAIN_FILE
    described = DomainFile() if given.is_dir() and not file.exists() else _parsed(file)
    found = {
        option: [str(path) for path in sorted(folder.iterdir()) if owns_folder and path.name.split(".")[0] == stem]
        for option, stem in _BY_CONVENTION.items()
    }
    stated = described.model_dump(exclude={"name", "description"}, exclude_defaults=True)
    if described.pair:
        found.update(domain_data=[], general_data=[])
    options = {_OPTION_OF.get(name, name): value for name, value in stated.items()}
    for option in ("domain_data", "general_data", "lexicon", "senses"):
        if option in options:
            options[option] = [str(_inside(file, folder, name)) for name in _words_of(options[option])]
    if described.pair:
        options["pair"] = [_inside_pair(file, folder, pair) for pair in described.pair]
    name = described.name or (folder.name if owns_folder else file.stem)
    options = {option: paths for option, paths in found.items() if paths} | options
    return described, {"domain": name, **options}


def with_domain(options: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """The options of a run; where `domain` names a folder or a file, with what that says in place of defaults.

    Args:
        options: as the user gave them.
        defaults: of the options.

    Raises:
        ConfigError: see `read_domain`; or the domain has no texts, and none are given.
    """
    domain = str(options["domain"]) if isinstance(options.get("domain"), str | Path) else ""
    if not names_domain_file(domain):
        return dict(options)
    _, found = read_domain(domain)
    given = {
        name for name, value in options.items() if name != "domain" and value not in (defaults.get(name), [], None)
    }
    if "pair" in given:
        found = {name: value for name, value in found.items() if name not in ("domain_data", "general_data")}
    if given.intersection({"domain_data", "general_data"}):
        found.pop("pair", None)
    if not (given | found.keys()).intersection({"domain_data", "pair"}):
        raise ConfigError(f"{redacted(domain)}: the domain has no texts; put them into a file or a folder `texts`")
    return {**options, **{name: value for name, value in found.items() if name not in given}}


def _parsed(file: Path) -> DomainFile:
    loaded = read_yaml(file, MAX_DOMAIN_BYTES)
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"{file}: a domain is described by entries such as `name: climate`, one per line")
    try:
        return DomainFile.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(DomainFile.model_fields)
        raise ConfigError(f"{file}: `{redacted(where)[:80]}`: {first['msg'].lower()}; known are {known}") from None


def _words_of(value: object) -> Iterator[str]:
    yield from map(str, as_words(value))


def _inside(file: Path, folder: Path, name: str) -> Path:
    """A path that a domain names.

    Raises:
        ConfigError: it is no local path, or leads out of the folder of the domain.
    """
    if "://" in name or name.startswith("hf:"):
        raise ConfigError(f"{file}: {redacted(name)[:200]}: name texts that are elsewhere with --domain_data")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise ConfigError(f"{file}: {name[:200]} is outside the folder of the domain; name it with --domain_data")
    return path


def _inside_pair(file: Path, folder: Path, pair: list[str]) -> list[str]:
    if len(pair) != 3:
        raise ConfigError(f"{file}: each pair is three words: the name of a kind, domain texts and general texts")
    return [pair[0], *(str(_inside(file, folder, name)) for name in pair[1:])]
