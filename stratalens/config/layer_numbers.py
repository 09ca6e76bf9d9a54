"""Parse the value of `--layers`: numbers and ranges such as `4 10-12 16`, or `all`."""

import re
from collections import Counter
from typing import Literal

from stratalens.errors import ConfigError

DEFAULT_LAYERS = (4, 10, 16, 22, 28)
"""Layers of the embedded model that are analysed when `--layers` is left out."""

MAX_LISTED_LAYERS = 10
"""Layers that an error message lists."""


def parse_layers(words: tuple[str, ...]) -> tuple[int, ...] | Literal["all"] | None:
    """Parse words such as `4`, `10-12` or `all` into layers in ascending order; None when there is no word.

    Raises:
        ConfigError: a word is not a layer or a range, or a layer is named twice.
    """
    if not words:
        return None
    if words == ("all",):
        return "all"
    layers: list[int] = []
    for word in words:
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", word)
        if match is None:
            raise ConfigError(f"layers: `{word}` is not a layer; write numbers and ranges such as 4 10-12, or all")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"layers: the range `{word}` runs backwards; write the lower layer first")
        layers += range(first, last + 1)
    repeated = sorted(layer for layer, times in Counter(layers).items() if times > 1)
    if repeated:
        named = ", ".join(map(str, repeated[:MAX_LISTED_LAYERS])) + (
            ", ..." if len(repeated) > MAX_LISTED_LAYERS else ""
        )
        raise ConfigError(f"layers: {named} named more than once")
    return tuple(sorted(layers))
