"""A user's own list of features: which latents of which layers to report."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stratalens.errors import ConfigError
from stratalens.files.plain_yaml import read_text


def read_feature_list(name: str) -> dict[int, list[int]]:
    """Layer -> latents, both in the order of the file, from a CSV with columns `layer` and `feature_number` or from
    lines of two numbers.

    Raises:
        ConfigError: the file cannot be read, a line is no pair of numbers, or a pair stands there twice.
    """
    path = Path(name).expanduser()
    lines = read_text(path).splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not numbered:
        raise ConfigError(f"{path}: it names no feature; write lines such as `16 163`")
    named = [column.strip().lower() for column in _cells(path, *numbered[0])]
    if "layer" in named and ("feature_number" in named or "latent" in named):
        places = named.index("layer"), named.index("feature_number" if "feature_number" in named else "latent")
        rows = [(number, _cells(path, number, line)) for number, line in numbered[1:]]
        pairs = [(number, [row[at] if at < len(row) else "" for at in places]) for number, row in rows]
    else:
        pairs = [(number, re.split(r"[\s,;/]+", line.strip())) for number, line in numbered]
    features: dict[int, dict[int, None]] = {}
    for number, pair in pairs:
        if len(pair) != 2 or not all(re.fullmatch(r"\d{1,7}", word.strip()) for word in pair):
            raise ConfigError(f"{path}, line {number}: expected a layer and a latent, such as `16 163`")
        layer, latent = int(pair[0]), int(pair[1])
        if latent in features.setdefault(layer, {}):
            raise ConfigError(f"{path}, line {number}: feature {latent} of layer {layer} is named twice")
        features[layer][latent] = None
    if not features:
        raise ConfigError(f"{path}: it names no feature; write lines such as `16 163`")
    return {layer: list(latents) for layer, latents in features.items()}


def _cells(path: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise ConfigError(f"{path}, line {number}: not a line of a CSV file ({error})") from None


def require_latents(features: Mapping[int, Sequence[int]], latents: Mapping[int, int]) -> None:
    """Check a list against the number of latents of each layer.

    Raises:
        ConfigError: a layer or a latent of the list does not exist.
    """
    for layer, numbers in features.items():
        if layer not in latents:
            raise ConfigError(f"--features names layer {layer}; analysed are {' '.join(map(str, latents))}")
        if max(numbers) >= latents[layer]:
            raise ConfigError(f"--features names feature {max(numbers)} of layer {layer}, which has {latents[layer]}")
