"""Read the configuration beside the weights of a checkpoint."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from stratalens.errors import CheckpointError, ConfigError
from stratalens.files.plain_yaml import read_yaml
from stratalens.files.regular import read_regular, reason_of
from stratalens.models.families import describe_blocks
from stratalens.models.model_files import require_own_file

MAX_CONFIG_BYTES = 2**20
MAX_SIZE = 2**31 - 1
"""Largest number in a configuration. Larger ones are nonsense, and of thousands of digits Python prints none."""
MAX_NAMES_CHARACTERS = 300
"""Of names in an error message."""

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(path: Path, needed_by: str) -> object:
    """Read a JSON file, or a YAML file by its name.

    Args:
        path: the file.
        needed_by: what the message says where it is missing.

    Raises:
        CheckpointError: it is missing, a link out of its folder, too large or unreadable.
    """
    try:
        require_own_file(path, CheckpointError)
        if path.suffix in (".yaml", ".yml"):
            return read_yaml(path, MAX_CONFIG_BYTES)
        return json.loads(read_regular(path, MAX_CONFIG_BYTES).decode())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; {needed_by}") from None
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({reason_of(error)})") from None


def read_table(path: Path, needed_by: str) -> dict[str, object]:
    """Read a JSON or YAML file that is a table.

    Raises:
        CheckpointError: see `read_settings`; or it is no table.
    """
    content = read_settings(path, needed_by)
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: a table of settings is expected, such as {{"d_in": 576}}')
    return {str(name): value for name, value in content.items()}


def validated_settings(path: Path, kind: type[Settings], content: object) -> Settings:
    """Check settings against what a format expects.

    Args:
        path: of the file, for the message.
        kind: describes what is expected.
        content: of the file.

    Raises:
        CheckpointError: a setting is missing or of the wrong kind.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {': '.join([*map(str, first['loc']), first['msg']])}") from None


def no_known_place(root: Path, names: Iterable[str], model: object) -> CheckpointError:
    """The error for checkpoints none of which belongs to a hookpoint of the model.

    Args:
        root: their folder.
        names: of the places where they say they belong.
        model: an `nn.Module`, the base model.
    """
    found = ", ".join(dict.fromkeys(names))[:MAX_NAMES_CHARACTERS]
    return CheckpointError(
        f"{root}: none of its SAEs belongs to a block of this model, or to a known module in one (found: {found}); "
        f"the model has {describe_blocks(model)}"  # pyright: ignore[reportArgumentType]
    )
