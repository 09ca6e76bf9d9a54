"""Read options from a YAML file of the user, or from the `run.json` of an earlier run, which is trusted less."""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stratalens.config.domain_file import names_domain_file
from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError
from stratalens.files.locations import user_path
from stratalens.files.plain_yaml import read_yaml
from stratalens.files.private import foreign_owner, others_may_write
from stratalens.files.result_names import RECORD_FILE

ONLY_TYPED = frozenset({"quiet", "trust_remote_code", "allow_fetch", "overwrite"})
"""Options that no file sets: what is allowed and what is silenced is said on the command line or in Python."""
NOT_FROM_RECORDS = ONLY_TYPED | {"labeling_endpoint", "labeling_model", "prompts", "workers"}
"""Options that no record sets: a record may come from someone else, and these also decide where text is sent.

Nor does it set an `output_dir` other than the directory it is in, and that only if nobody else could have written it.
"""

TYPE_OUTPUT_DIR = "so this record does not decide where results go; type --output_dir"


class ConfigFile(NamedTuple):
    """The options that a file names."""

    path: Path
    is_record: bool
    """Whether it is the record of a run, or has the form of one."""
    options: dict[str, object]
    """All that it names, unchecked; options without a value are left out."""

    @property
    def taken(self) -> dict[str, object]:
        """The options that such a file may set."""
        return {name: value for name, value in self.options.items() if name not in self._never_taken}

    @property
    def not_taken(self) -> list[str]:
        """Names of the options that it may not set, but sets to another value than the default."""
        fields = RunConfig.model_fields
        return [
            name for name in self.options if name in self._never_taken and self.options[name] != fields[name].default
        ]

    @property
    def _never_taken(self) -> frozenset[str]:
        if not self.is_record:
            return ONLY_TYPED
        return NOT_FROM_RECORDS if self._lies_in_its_output_dir() else NOT_FROM_RECORDS | {"output_dir"}

    def require_own_output_dir(self) -> None:
        """Check that nobody else chose where results go: they may hold texts that this user alone can read.

        Raises:
            ConfigError: the record sets its own directory as `output_dir`, and others could have written the record, or
                can write into the directory.
        """
        if not (self.is_record and self._lies_in_its_output_dir()):
            return
        for path in (self.path, self.path.parent):
            if (owner := foreign_owner(path)) is not None:
                raise ConfigError(f"{path}: belongs to user {owner}, {TYPE_OUTPUT_DIR}")
            if others_may_write(path):
                raise ConfigError(f"{path}: other users can write here, {TYPE_OUTPUT_DIR}")

    def _lies_in_its_output_dir(self) -> bool:
        directory = self.options.get("output_dir")
        if not isinstance(directory, str) or "\0" in directory:
            return False
        with suppress(ConfigError):
            return os.path.realpath(user_path(directory)) == os.path.realpath(self.path.parent)
        return False


def read_config_file(path: Path) -> ConfigFile:
    """Read options from a YAML or JSON file.

    A file is a record if it has a table `settings`, which alone is read, or the name `run.json`, without which nobody
    would take it for a record. Any other file is the user's own.

    Raises:
        ConfigError: the file is missing, unreadable or not a table of options, gives an option twice, or is half a
            record.
    """
    loaded = read_yaml(path)
    is_record = False
    if isinstance(loaded, dict) and (isinstance(loaded.get("settings"), dict) or path.name.lower() == RECORD_FILE):
        is_record = True
        loaded = _settings(path, loaded)
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ConfigError(f"{path}: expected options such as `top_n: 20`, one per line")
    _require_one_spelling(path, loaded)
    options = {key.replace("-", "_"): value for key, value in loaded.items() if value is not None}
    if is_record and names_domain_file(str(options.get("domain", ""))):
        raise ConfigError(f"{path}: a {RECORD_FILE} names a domain, not where it lies; type --domain")
    return ConfigFile(path, is_record, options)


def as_taken(recorded: RunConfig) -> RunConfig:
    """Return the options of a record, those that no record sets at their defaults."""
    return recorded.model_copy(update={name: RunConfig.model_fields[name].default for name in NOT_FROM_RECORDS})


def _settings(path: Path, record: dict[str, object]) -> dict[str, object]:
    """Return the settings of a record; one without them, or with options beside them, is refused."""
    settings = record.get("settings")
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{path}: no table `settings`, which every {RECORD_FILE} has; give options of your own another file name"
        )
    # A record has tables `layers`, `harvest` and `token_test`, which are facts; the last one may be empty.
    beside = [name for name, value in record.items() if _names_option(name) and not isinstance(value, dict | None)]
    if beside:
        raise ConfigError(
            f"{path}: `{beside[0]}` stands beside `settings`, the mark of a {RECORD_FILE}; remove one or the other"
        )
    return settings


def _names_option(name: object) -> bool:
    return isinstance(name, str) and name.replace("-", "_") in RunConfig.model_fields


def _require_one_spelling(path: Path, options: Iterable[str]) -> None:
    times_given = Counter(name.replace("-", "_") for name in options)
    if repeated := [name for name, times in times_given.items() if times > 1]:
        raise ConfigError(f"{path}: `{repeated[0]}` is given twice, once with a hyphen")
