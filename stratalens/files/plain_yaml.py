"""Read small text and YAML files of the user, with limits on their size and nesting; of YAML only plain values."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratalens.errors import ConfigError

MAX_FILE_BYTES = 64 * 2**20
MAX_NESTING = 32
"""Levels of lists and tables inside one another. The C parser has no limit and crashes after some thousands."""


def read_text(path: Path) -> str:
    """Read the text of a file.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or is larger than `MAX_FILE_BYTES`.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB, the limit for such a file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot be read: not UTF-8 text") from None


def read_yaml(path: Path) -> object:
    """Read the value of a YAML or JSON file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, gives a key twice, or contains more than plain values.
    """
    import yaml

    text = read_text(path)
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _require_plain(path, yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # ValueError: an impossible date or an integer with too many digits
        raise ConfigError(f"{path}: not valid YAML or JSON ({' '.join(str(error).split())[:200]})") from None


@dataclass
class _OpenCollection:
    """A list or a table whose end has not been read yet."""

    is_table: bool
    at_key: bool = True
    keys: set[str] = field(default_factory=set)


def _require_plain(path: Path, events: Any) -> None:
    """Refuse aliases, tags, repeated keys and deep nesting: they make a file ambiguous, huge or a program."""
    import yaml

    open_nodes: list[_OpenCollection] = []
    for event in events:
        location = f"{path}: line {event.start_mark.line + 1}"
        if isinstance(event, yaml.CollectionEndEvent):
            open_nodes.pop()
        elif isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{location}: `*{event.anchor}` repeats another value; write the value itself")
        elif isinstance(event, yaml.NodeEvent):
            if tag := getattr(event, "tag", None):
                raise ConfigError(f"{location}: `{tag[:60]}` is a tag; only plain values are accepted")
            if open_nodes and open_nodes[-1].is_table:
                _require_new_key(location, open_nodes[-1], event)
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append(_OpenCollection(isinstance(event, yaml.MappingStartEvent)))
            if len(open_nodes) > MAX_NESTING:
                raise ConfigError(f"{location}: lists and tables are nested more than {MAX_NESTING} deep")


def _require_new_key(location: str, table: _OpenCollection, event: Any) -> None:
    key = getattr(event, "value", None) if table.at_key else None
    if key in table.keys:
        raise ConfigError(f"{location}: `{key[:60]}` is given twice")
    if key is not None:
        table.keys.add(key)
    table.at_key = not table.at_key
