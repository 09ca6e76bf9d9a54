"""Read small text, YAML and JSON files, with limits on their size and nesting; of YAML only plain values."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratalens.errors import ConfigError
from stratalens.files.regular import read_regular, reason_of, size_text

MAX_FILE_BYTES = 64 * 2**20
MAX_YAML_BYTES = 2 * 2**20
"""YAML of many short values is read at half a megabyte a second; JSON, such as a `run.json` of many files, at 100."""
MAX_NESTING = 32
"""Levels of lists and tables inside one another. The C parser has no limit and crashes after some thousands."""
BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
"""What YAML reads as a number in base 60, such as `10:30`."""


def read_text(path: Path, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Read the text of a file.

    Args:
        path: the file.
        max_bytes: a larger file is refused.

    Raises:
        ConfigError: the file is missing, too large, not a regular file or not UTF-8, or cannot be read.
    """
    try:
        return read_regular(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot be read: not UTF-8 text") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ConfigError(f"{path}: cannot be read: {reason_of(error)}") from None


def read_yaml(path: Path, max_bytes: int = MAX_FILE_BYTES) -> object:
    """Read the value of a YAML or JSON file.

    Args:
        path: the file.
        max_bytes: a larger file is refused; of YAML, one larger than `MAX_YAML_BYTES` in any case.

    Raises:
        ConfigError: the file cannot be read, is neither YAML nor JSON, gives a key twice, is nested too deeply, or
            contains more than plain values.
    """
    text = read_text(path, max_bytes)
    if text.lstrip().startswith(("{", "[")):
        try:
            return _parse_json(path, text)
        except ValueError:  # YAML may begin like JSON
            pass
    return _parse_yaml(path, text)


def _parse_json(path: Path, text: str) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON.
        ConfigError: it gives a key twice or is nested too deeply.
    """

    def table(pairs: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(pairs)
        if len(values) < len(pairs):
            repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ConfigError(f"{path}: `{repeated[:60]}` is given twice")
        return values

    try:
        value = json.loads(text, object_pairs_hook=table)
    except RecursionError:
        raise _nested_too_deeply(path) from None
    level = [value]
    for _ in range(MAX_NESTING):
        outer = [value for value in level if isinstance(value, dict | list)]
        level = [inner for value in outer for inner in (value.values() if isinstance(value, dict) else value)]
    if any(isinstance(inner, dict | list) for inner in level):
        raise _nested_too_deeply(path)
    return value


def _nested_too_deeply(where: object) -> ConfigError:
    return ConfigError(f"{where}: lists and tables are nested more than {MAX_NESTING} deep")


def _parse_yaml(path: Path, text: str) -> object:
    """The value of a YAML text.

    Raises:
        ConfigError: it is not YAML, is too long, gives a key twice, is nested too deeply, or contains more than plain
            values.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{path}: not valid JSON, and larger than {size_text(MAX_YAML_BYTES)}, the limit for YAML")
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
    """Refuse aliases, tags, repeated and merged keys, base 60 and deep nesting.

    They make a file ambiguous, huge, a program, or slow: a long number in base 60 takes minutes.
    """
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
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                _require_plain_word(location, event.value)
            if open_nodes and open_nodes[-1].is_table:
                _require_new_key(location, open_nodes[-1], event)
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append(_OpenCollection(isinstance(event, yaml.MappingStartEvent)))
            if len(open_nodes) > MAX_NESTING:
                raise _nested_too_deeply(location)


def _require_plain_word(location: str, word: str) -> None:
    """Refuse words without quotation marks that YAML takes for something else than anybody would expect."""
    if word == "<<":
        raise ConfigError(f"{location}: `<<` takes over another table; write its values themselves")
    if BASE_60.fullmatch(word):
        raise ConfigError(f"{location}: `{word[:60]}` is a number in base 60 to YAML; put it in quotation marks")


def _require_new_key(location: str, table: _OpenCollection, event: Any) -> None:
    key = getattr(event, "value", None) if table.at_key else None
    if key in table.keys:
        raise ConfigError(f"{location}: `{key[:60]}` is given twice")
    if key is not None:
        table.keys.add(key)
    table.at_key = not table.at_key
