"""What `--sae_model` names: a folder or file on this machine or a Hub repository, and which SAEs in it.

Besides a path or Hub id it may be `PLACE:FOLDER` and `PLACE:PATTERN`, where `{layer}` stands for the number of a layer
and `*` and `?` for characters other than `/`, such as `google/gemma-scope-2b-pt-res:layer_{layer}/width_16k`.
"""

import re
from pathlib import Path
from typing import NamedTuple

from stratalens.errors import CheckpointError, ConfigError
from stratalens.files.locations import user_path
from stratalens.models.hub import HUB_ID, local_or_hub
from stratalens.saes.listed import WEIGHTS

LAYER = "{layer}"
ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
"""How an absolute path begins, here or under Windows."""
DRIVE = 1
"""Position of the colon after the letter of a drive."""
HUB_FOLDER = re.compile(r"(\w[\w.-]*/[\w.-]+)/(\w[^\\]*)")
"""A folder of a Hub repository as it would be written if it were a path."""
WILD = re.compile(r"[*?]|\{layer\}")


class SaePlace(NamedTuple):
    """Where SAEs are, and what of it is meant."""

    location: str
    """Path of a local folder or file, or a Hub id."""
    is_local: bool
    folder: str = ""
    """Folder in it in which SAEs are sought, without wildcards; empty for all of it."""
    pattern: str = ""
    """Which paths in that folder are meant, with wildcards; empty for all."""

    def matches(self, path: str) -> int | bool | None:
        """Whether a path in the folder is meant, or is below one that is.

        Returns:
            None if it is not; the number of its layer if the pattern says where that stands; else True.
        """
        if not self.pattern:
            return True
        match = _expression(self.pattern).fullmatch(path)
        if match is None:
            return None
        return int(match["layer"]) if LAYER in self.pattern else True


def parse_place(name: str) -> SaePlace:
    """Parse `--sae_model`. What exists on this machine by the whole name, colons and all, is that.

    Raises:
        CheckpointError: there is no such path, and it has not the form of a Hub id; or the path cannot be read.
        ConfigError: what follows the colon leads out of the place.
    """
    if _exists(name) or "://" in name:
        return _place(name, "")
    for position in _colons(name):
        place, inside = name[:position], name[position + 1 :]
        if _exists(place) or HUB_ID.fullmatch(place):
            return _place(place, inside)
    folder, pattern = _split(name)
    if LAYER in name and ":" not in pattern and _exists(folder or "."):
        return _place(folder or ".", pattern)
    if match := HUB_FOLDER.fullmatch(name.partition(":")[0]):
        raise CheckpointError(
            f"{name}: no such directory; a folder of a Hub repository is written with a colon, {match[1]}:{match[2]}"
        )
    return _place(name, "")


def _colons(name: str) -> list[int]:
    """Positions of the colons at which a place may end, the last first; not of the one after a drive."""
    has_drive = ABSOLUTE.match(name) and name[DRIVE : DRIVE + 1] == ":"
    first = DRIVE + 1 if has_drive else 1
    return [position for position in range(len(name) - 1, first - 1, -1) if name[position] == ":"]


def _exists(name: str) -> bool:
    try:
        return user_path(name).exists()
    except (OSError, ValueError):
        return False


def _place(name: str, inside: str) -> SaePlace:
    location = local_or_hub(name, CheckpointError, WEIGHTS)
    is_local = Path(location).exists()  # a name that no path has is a Hub id
    inside = inside.strip("/") if not ABSOLUTE.match(inside) else inside
    if ABSOLUTE.match(inside) or ".." in inside.split("/"):
        raise ConfigError(f"sae_model: `{inside}` leads out of {name}; name a folder or pattern in it")
    folder, pattern = _split(inside)
    return SaePlace(location, is_local, folder, pattern)


def _split(path: str) -> tuple[str, str]:
    """The folders before the first with a wildcard, and the rest."""
    parts = path.split("/") if path else []
    first = next((number for number, part in enumerate(parts) if WILD.search(part)), len(parts))
    return "/".join(parts[:first]), "/".join(parts[first:])


def _expression(pattern: str) -> re.Pattern[str]:
    pieces, seen = [], False
    for piece in re.split(r"(\{layer\}|[*?])", pattern):
        if piece == LAYER:
            pieces.append(r"0*(?P=layer)" if seen else r"0*(?P<layer>\d{1,6})")
            seen = True
        else:
            pieces.append({"*": "[^/]*", "?": "[^/]"}.get(piece) or re.escape(piece))
    return re.compile("".join(pieces) + "(/.*)?")
