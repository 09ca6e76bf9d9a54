"""Small text files of a user's own, read within bounds; of YAML only plain values."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratalens.errors import ConfigError

LARGEST_BYTES = 64 * 2**20
DEEPEST = 32
"""Lists and tables inside one another. The C parser has no bound of its own and ends the process some thousands on."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or larger than any such file needs to be.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > LARGEST_BYTES:
        raise ConfigError(f"{path}: larger than {LARGEST_BYTES // 2**20} MiB, which no such file needs to be")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot be read: not UTF-8 text") from None


def read_yaml(path: Path) -> object:
    """The value that a YAML or JSON file holds.

    Raises:
        ConfigError: it cannot be read, is not YAML, gives a key twice, or holds more than plain values.
    """
    import yaml

    text = read_text(path)
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _require_plain(path, yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date that is none, a number too long
        raise ConfigError(f"{path}: not valid YAML or JSON ({' '.join(str(error).split())[:200]})") from None


@dataclass
class _Open:
    """A list or a table whose end has not been read yet."""

    is_table: bool
    at_key: bool = True
    keys: set[str] = field(default_factory=set)


def _require_plain(path: Path, events: Any) -> None:
    """Refuse what makes a small file large, deep or ambiguous, or speaks of Python objects."""
    import yaml

    open_nodes: list[_Open] = []
    for event in events:
        place = f"{path}: line {event.start_mark.line + 1}"
        if isinstance(event, yaml.CollectionEndEvent):
            open_nodes.pop()
        elif isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{place}: `*{event.anchor}` repeats another value; write the value itself")
        elif isinstance(event, yaml.NodeEvent):
            if tag := getattr(event, "tag", None):
                raise ConfigError(f"{place}: `{tag[:60]}` is a tag; only plain values are taken")
            if open_nodes and open_nodes[-1].is_table:
                _require_new(place, open_nodes[-1], event)
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append(_Open(isinstance(event, yaml.MappingStartEvent)))
            if len(open_nodes) > DEEPEST:
                raise ConfigError(f"{place}: more than {DEEPEST} lists and tables inside one another")


def _require_new(place: str, table: _Open, event: Any) -> None:
    key = getattr(event, "value", None) if table.at_key else None
    if key in table.keys:
        raise ConfigError(f"{place}: `{key[:60]}` is given twice")
    if key is not None:
        table.keys.add(key)
    table.at_key = not table.at_key
