"""Read options from a YAML file, or from the `run.json` of an earlier run."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from stratalens.errors import ConfigError
from stratalens.files.plain_yaml import read_yaml


def _require_one_spelling(path: Path, options: Iterable[str]) -> None:
    times_given = Counter(name.replace("-", "_") for name in options)
    if repeated := [name for name, times in times_given.items() if times > 1]:
        raise ConfigError(f"{path}: `{repeated[0]}` is given twice, once with a hyphen")


def read_config_file(path: Path) -> dict[str, object]:
    """Read options from a YAML or JSON file; of a `run.json`, only its settings.

    `trust_remote_code` is not read from a `run.json`, and options without a value are left out.

    Raises:
        ConfigError: the file is missing, unreadable or not a table of options, or gives an option twice.
    """
    loaded = read_yaml(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("settings"), dict):
        loaded = {name: value for name, value in loaded["settings"].items() if name != "trust_remote_code"}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ConfigError(f"{path}: expected options such as `top_n: 20`, one per line")
    _require_one_spelling(path, loaded)
    return {key.replace("-", "_"): value for key, value in loaded.items() if value is not None}
