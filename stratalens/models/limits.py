"""What a model's positions and vocabulary allow, known from its modules and configuration alone."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from stratalens.errors import ModelError
from stratalens.models.families import is_for_text
from stratalens.models.source import ModelSource, skeleton
from stratalens.models.tokens import PassageCutter

POSITION_TABLE = re.compile(r"wpe|pos_encoding|\w*(position|pos_emb)\w*")
"""Name of a module or buffer that holds a vector for each position."""
MAX_SHOWN_TOKENS = 3


def require_positions(source: ModelSource, max_length: int) -> None:
    """Check that a model with a table of positions has one for every token of a passage.

    Raises:
        ModelError: the table is too short.
    """
    positions = min(_table_lengths(skeleton(source)), default=max_length)
    if positions < max_length:
        raise ModelError(
            f"{source.name}: it has {positions:,} positions, and passages may have --max_length {max_length:,} tokens; "
            f"give --max_length {positions}"
        )


def position_warning(source: ModelSource, max_length: int) -> str:
    """Say that passages go beyond the positions that a model was trained on; empty where they do not."""
    trained = _trained_positions(source)
    if trained is None or trained >= max_length:
        return ""
    whole = getattr(skeleton(source).config.get_text_config(), "max_position_embeddings", None)
    if isinstance(whole, int) and whole >= max_length:
        return (
            f"passages may have --max_length {max_length:,} tokens, but {source.name} was trained on {trained:,} "
            f"positions before they were stretched to {whole:,}, and its activations beyond them may mean less; "
            f"--max_length {trained} keeps to them"
        )
    return (
        f"passages may have --max_length {max_length:,} tokens, but {source.name} was trained on {trained:,} "
        f"positions, and its activations beyond them mean little; --max_length {trained} keeps to them"
    )


def context_length(source: ModelSource) -> int | None:
    """Most tokens that a text may have by the model's table of positions and its configuration; None if neither says.

    What a configuration says is not always a limit of the model, but beyond it a text means little.
    """
    own = skeleton(source)
    declared = getattr(own.config.get_text_config(), "max_position_embeddings", None)
    lengths = [*_table_lengths(own), *([declared] if isinstance(declared, int) and declared > 0 else [])]
    return min(lengths, default=None)


def rows_of_embedding(source: ModelSource) -> int:
    """Number of token ids that a model has a vector for."""
    weights = [weight for weight in skeleton(source).get_input_embeddings().parameters() if weight.ndim == 2]
    return weights[0].shape[0] if weights else skeleton(source).config.get_text_config().vocab_size


def require_known_ids(source: ModelSource, cutter: PassageCutter) -> None:
    """Check that every token that a text may have is one of the model's.

    A special token beyond them is left alone if the tokenizer adds it to no text: the cutter reads its name as text.

    Raises:
        ModelError: one is not.
    """
    added, rows = {*cutter.prefix, *cutter.suffix}, rows_of_embedding(source)
    tokenizer: Any = cutter.tokenizer
    unknown = sorted(
        (token_id, name)
        for name, token_id in tokenizer.get_vocab().items()
        if token_id >= rows and (token_id in added or token_id not in cutter.special_ids)
    )
    if unknown:
        shown = ", ".join(f"{name[:30]!a}: {token_id}" for token_id, name in unknown[:MAX_SHOWN_TOKENS])
        raise ModelError(
            f"{source.name}: its tokenizer has {len(unknown):,} tokens that the model has no vector for "
            f"({shown}{', …' if len(unknown) > MAX_SHOWN_TOKENS else ''}; the model has ids 0 to {rows - 1}); "
            "use the tokenizer that belongs to the model"
        )


def _table_lengths(decoder: nn.Module) -> Iterator[int]:
    """Yield for how many positions each table of positions has a vector; those of images or sound are no limit."""
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Embedding) and _is_position_table(decoder, name):
            offset = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            yield module.num_embeddings - offset
    for name, buffer in decoder.named_buffers():
        if buffer.ndim == 2 and buffer.is_floating_point() and _is_position_table(decoder, name):
            yield buffer.shape[0]


def _is_position_table(decoder: nn.Module, name: str) -> bool:
    return POSITION_TABLE.fullmatch(name.rpartition(".")[2]) is not None and is_for_text(decoder, name)


def _trained_positions(source: ModelSource) -> int | None:
    """Number of positions that a model was trained on, before they were stretched; None without rotary positions."""
    config = skeleton(source).config.get_text_config()
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if not scaling and not hasattr(config, "rope_theta"):
        return None
    kinds = [scaling, *(kind for kind in scaling.values() if isinstance(kind, dict))]
    numbers = [kind.get("original_max_position_embeddings") for kind in kinds]
    numbers += [getattr(config, name, None) for name in ("original_max_position_embeddings", "max_position_embeddings")]
    return next((number for number in numbers if isinstance(number, int) and number > 0), None)
