"""Choose between SAEs at the same place: by globs over their paths, and by the nearest L0 (`--sae_pick`)."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from stratalens.config.sae_pick import wanted_l0
from stratalens.errors import ConfigError
from stratalens.files.json_files import json_object
from stratalens.saes.listed import l0_of

CONFIG_NAMES = ("cfg.json", "config.json")
MAX_LISTED = 12
"""Paths that an error message lists."""


def pick(
    paths: Sequence[str], picks: Sequence[str], where: str, l0_in_config: Callable[[str], float | None]
) -> list[str]:
    """The paths that fit all picks, applied one after the other.

    Args:
        paths: of SAEs at the same hookpoint.
        picks: globs, each for the whole path or for some folders of it; `l0=N` is the one with the nearest L0, of two
            equally near ones the lower.
        where: what to name in a message, such as `DIR: layer 12`.
        l0_in_config: path -> the L0 that the SAE's configuration says, where the path says none.

    Raises:
        ConfigError: none fits, or none says its L0.
    """
    left = list(paths)
    for one in picks:
        l0 = wanted_l0(one)
        before = left
        if l0 is None:
            left = [path for path in left if fnmatchcase(f"/{path}/", f"*/{one.strip('/')}/*")]
        else:
            said = [(own if (own := l0_of(path)) is not None else l0_in_config(path), path) for path in left]
            distances = [(abs(own - l0), own, path) for own, path in said if own is not None]
            left = [path for _, _, path in sorted(distances)[:1]]
        if not left:
            reason = "says its L0, so choose by a glob" if l0 is not None else f"fits --sae_pick {one}"
            raise ConfigError(f"{where}: none of its SAEs {reason}; there are {listed(before)}")
    return left


def only_one(paths: Sequence[str], where: str) -> str:
    """The only path.

    Raises:
        ConfigError: there are several.
    """
    if len(paths) == 1:
        return paths[0]
    first, second = paths[0].split("/"), paths[1].split("/")
    different = next((own for own, other in zip(first, second, strict=False) if own != other), paths[0])
    examples = f"--sae_pick '{different}'"
    if any(l0_of(path) is not None for path in paths):
        examples += f" or --sae_pick l0={l0_of(paths[0]) or 70:.0f}"
    raise ConfigError(f"{where}: several SAEs fit: {listed(paths)}; choose one, such as by {examples}")


def listed(paths: Sequence[str]) -> str:
    """The first paths, for a message."""
    others = f" and {len(paths) - MAX_LISTED} others" if len(paths) > MAX_LISTED else ""
    return ", ".join(paths[:MAX_LISTED]) + others


def l0_beside(path: Path) -> float | None:
    """The L0 that a configuration in the folder of an SAE says; None if there is none.

    Args:
        path: the folder, or a file in it.
    """
    folder = path if path.is_dir() else path.parent
    return next((l0 for name in CONFIG_NAMES if (l0 := l0_said(json_object(folder / name))) is not None), None)


def l0_said(config: dict[str, Any]) -> float | None:
    """The L0 in a configuration: `l0`, or the `k` of a TopK SAE, also of its trainer."""
    trainer = config.get("trainer")
    for part in (config, trainer if isinstance(trainer, dict) else {}):
        for key in ("l0", "k"):
            if isinstance(value := part.get(key), int | float) and not isinstance(value, bool):
                return float(value)
    return None
