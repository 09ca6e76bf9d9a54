"""A user's own list of features: which latents of which layers to report."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stratalens.errors import ConfigError
from stratalens.files.locations import user_path
from stratalens.files.plain_yaml import read_text
from stratalens.hookpoint import NAME, Hookpoint

MAX_LIST_BYTES = 4 * 2**20
"""About half a million features."""


def read_feature_list(name: str) -> dict[Hookpoint, list[int]]:
    """Read a list of features; return hookpoint -> latents, both in the order of the file.

    Args:
        name: path of a CSV file with columns `layer` and `feature_number` (or `latent`), perhaps `site`, or of a file
            with lines of a hookpoint and a latent, such as `16 163` or `16_mlp/163`.

    Raises:
        ConfigError: the file cannot be read, names no feature, has a line without two numbers, or repeats a feature.
    """
    path = user_path(name)
    lines = read_text(path, MAX_LIST_BYTES).splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not numbered:
        raise ConfigError(f"{path}: no feature in this file; write lines such as `16 163`")
    header = [column.strip().lower() for column in _cells(path, *numbered[0])]
    if "layer" in header and ("feature_number" in header or "latent" in header):
        rows = [(number, _cells(path, number, line)) for number, line in numbered[1:]]
        pairs = [(number, _of_row(dict(zip(header, row, strict=False)))) for number, row in rows]
    else:
        pairs = [(number, re.split(r"[\s,;/]+", line.strip())) for number, line in numbered]
    features: dict[Hookpoint, dict[int, None]] = {}
    for number, pair in pairs:
        place, feature = map(str.strip, pair) if len(pair) == 2 else ("", "")
        if not NAME.fullmatch(place) or not re.fullmatch(r"\d{1,7}", feature):
            raise ConfigError(
                f"{path}, line {number}: expected a layer and a latent, such as `16 163`, or with the site of an SAE, "
                "such as `16_mlp 163`"
            )
        hookpoint, latent = Hookpoint.parse(place), int(feature)
        if latent in features.setdefault(hookpoint, {}):
            raise ConfigError(f"{path}, line {number}: feature {latent} of layer {hookpoint} is listed twice")
        features[hookpoint][latent] = None
    if not features:
        raise ConfigError(f"{path}: no feature in this file; write lines such as `16 163`")
    return {hookpoint: list(latents) for hookpoint, latents in features.items()}


def _of_row(row: Mapping[str, str]) -> list[str]:
    """Hookpoint and latent of a row of a CSV file."""
    site = row.get("site", "").strip()
    place = row.get("layer", "").strip() + (f"_{site}" if site not in ("", "resid") else "")
    return [place, row.get("feature_number", row.get("latent", ""))]


def _cells(path: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise ConfigError(f"{path}, line {number}: not a line of a CSV file ({error})") from None


def require_latents(features: Mapping[Hookpoint, Sequence[int]], latents: Mapping[Hookpoint, int]) -> None:
    """Check that every listed feature exists.

    Args:
        features: hookpoint -> listed latents.
        latents: analysed hookpoint -> number of its latents.

    Raises:
        ConfigError: a listed layer was not analysed, or a listed latent does not exist.
    """
    for hookpoint, numbers in features.items():
        if hookpoint not in latents:
            raise ConfigError(
                f"--features names layer {hookpoint}; the analysed layers are {' '.join(map(str, latents))}"
            )
        if max(numbers) >= latents[hookpoint]:
            raise ConfigError(
                f"--features names feature {max(numbers)} of layer {hookpoint}, "
                f"which has features 0 to {latents[hookpoint] - 1}"
            )
