"""A user's own list of features: which latents of which layers to report."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stratalens.errors import ConfigError
from stratalens.files.locations import user_path
from stratalens.files.plain_yaml import read_text

MAX_LIST_BYTES = 4 * 2**20
"""About half a million features."""


def read_feature_list(name: str) -> dict[int, list[int]]:
    """Read a list of features; return layer -> latents, both in the order of the file.

    Args:
        name: path of a CSV file with columns `layer` and `feature_number` (or `latent`), or of a file with lines of two
            numbers, layer and latent.

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
        columns = header.index("layer"), header.index("feature_number" if "feature_number" in header else "latent")
        rows = [(number, _cells(path, number, line)) for number, line in numbered[1:]]
        pairs = [(number, [row[at] if at < len(row) else "" for at in columns]) for number, row in rows]
    else:
        pairs = [(number, re.split(r"[\s,;/]+", line.strip())) for number, line in numbered]
    features: dict[int, dict[int, None]] = {}
    for number, pair in pairs:
        if len(pair) != 2 or not all(re.fullmatch(r"\d{1,7}", word.strip()) for word in pair):
            raise ConfigError(f"{path}, line {number}: expected a layer and a latent, such as `16 163`")
        layer, latent = int(pair[0]), int(pair[1])
        if latent in features.setdefault(layer, {}):
            raise ConfigError(f"{path}, line {number}: feature {latent} of layer {layer} is listed twice")
        features[layer][latent] = None
    if not features:
        raise ConfigError(f"{path}: no feature in this file; write lines such as `16 163`")
    return {layer: list(latents) for layer, latents in features.items()}


def _cells(path: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise ConfigError(f"{path}, line {number}: not a line of a CSV file ({error})") from None


def require_latents(features: Mapping[int, Sequence[int]], latents: Mapping[int, int]) -> None:
    """Check that every listed feature exists.

    Args:
        features: layer -> listed latents.
        latents: analysed layer -> number of its latents.

    Raises:
        ConfigError: a listed layer was not analysed, or a listed latent does not exist.
    """
    for layer, numbers in features.items():
        if layer not in latents:
            raise ConfigError(f"--features names layer {layer}; the analysed layers are {' '.join(map(str, latents))}")
        if max(numbers) >= latents[layer]:
            raise ConfigError(
                f"--features names feature {max(numbers)} of layer {layer}, "
                f"which has features 0 to {latents[layer] - 1}"
            )
