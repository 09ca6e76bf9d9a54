"""Layers as people write them: `4 10-12 16`, or `all`."""

import re
from collections import Counter
from typing import Literal

from stratalens.errors import ConfigError

BRIEF_LAYERS = (4, 10, 16, 22, 28)

MAX_SHOWN = 10
"""Values that a complaint repeats, at most."""


def parse_layers(words: tuple[str, ...]) -> tuple[int, ...] | Literal["all"] | None:
    """Layers named by words such as `4`, `10-12` or `all`, in rising order; None when no word is given.

    Raises:
        ConfigError: a word is no layer, or a layer is named twice.
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
            raise ConfigError(f"layers: the range `{word}` runs backwards")
        layers += range(first, last + 1)
    repeated = sorted(layer for layer, times in Counter(layers).items() if times > 1)
    if repeated:
        named = ", ".join(map(str, repeated[:MAX_SHOWN])) + (", ..." if len(repeated) > MAX_SHOWN else "")
        raise ConfigError(f"layers: {named} named more than once")
    return tuple(sorted(layers))
