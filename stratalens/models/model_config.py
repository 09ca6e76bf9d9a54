"""Load the configuration of a model, whose numbers become lists and whose words may name code that is fetched."""

import re
from collections.abc import Iterator
from typing import Any

from stratalens.errors import StratalensError, printable
from stratalens.models.gguf_file import gguf_arguments
from stratalens.models.hub import hub_errors

MAX_NUMBER = 2**31
"""Largest whole number in a configuration; vocabularies and contexts are far smaller."""
MAX_COUNT = 10_000
"""Largest number of layers or experts; the library makes lists of this length before it looks at the weights."""
COUNTS = re.compile(r"(num|n)_(\w+_)?(layer|block|expert)s?|\w*_layers|depths?|attention_types")
MAX_SHOWN_DIGITS = 20
BASES = re.compile(r"\w*theta|\w*base")
"""Numbers that are only computed with as fractions, such as `rope_theta`, and may be as large as they like."""
ATTENTIONS = ("eager", "sdpa", "flex_attention")
"""Implementations of attention that are part of PyTorch and transformers; any other may be fetched from the Hub."""


def load_config(
    location: str, error_type: type[StratalensError], *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """Load a model's configuration. An attention that is not built in gives way to the library's own choice.

    Args:
        location: a local directory or a Hub id.
        error_type: class of the error to raise.
        revision: branch, tag or commit of the Hub repository; None is its default branch.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        StratalensError: of class `error_type`, if it is missing, unreadable, or holds a number that no model has.
    """
    from transformers import AutoConfig, PreTrainedConfig

    with hub_errors(location, error_type):
        directory, file = gguf_arguments(location)
        content, _ = PreTrainedConfig.get_config_dict(directory, revision=revision, **file)
        for name, number in _numbers(content):
            if abs(number) > (MAX_COUNT if COUNTS.fullmatch(name) else MAX_NUMBER):
                shown = f"{printable(name[:60])} {str(number)[:MAX_SHOWN_DIGITS]}"
                raise error_type(f"{location}: its config.json is not that of a causal language model ({shown})")
        config = AutoConfig.from_pretrained(directory, revision=revision, trust_remote_code=trust_remote_code, **file)
    _keep_built_in_attention(config)
    return config


def _numbers(content: object) -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of a configuration, however deep they lie, with the nearest name above each."""
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(key), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(name, item) for item in value]
        elif isinstance(value, int) and not BASES.fullmatch(name):
            yield name, value


def _keep_built_in_attention(config: Any) -> None:
    """Leave the choice of attention to the library where the configuration, or one in it, names another."""
    inner = [getattr(config, name, None) for name in config.sub_configs]
    for part in (config, *(part for part in inner if part is not None)):
        if part._attn_implementation not in (None, *ATTENTIONS):
            part._attn_implementation = None
