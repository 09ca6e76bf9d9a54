"""The tokens of task items, and which of them belong to the continuations."""

from collections.abc import Iterable
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from stratalens.effects.task_items import CONTINUATIONS, TaskItem
from stratalens.errors import ConfigError
from stratalens.models.tokens import PassageCutter, TokenSpan


class MarkedTokens(NamedTuple):
    """The tokens of a prompt and one continuation, as the model reads them."""

    token_ids: Int[np.ndarray, "seq"]
    """With the special tokens that the tokenizer adds."""
    marked: Bool[np.ndarray, "seq"]
    """The tokens of the continuation, whose log-probabilities are summed; never the first two of all."""


class TokenisedItem(NamedTuple):
    """Both sequences of an item; they have the same tokens before the first that is marked."""

    correct: MarkedTokens
    wrong: MarkedTokens


def tokenised_items(items: Iterable[TaskItem], cutter: PassageCutter) -> list[TokenisedItem]:
    """Tokenise prompt and continuations together, and mark the tokens of the continuations.

    These are the tokens that reach past the end of the prompt. Where a tokenizer reads the end of the prompt another
    way before one continuation than before the other, all tokens from there on are marked in both: so the sums of
    log-probabilities that are compared follow on the same tokens.

    Args:
        items: the items.
        cutter: one with a `min_length` of 1, so that it leaves out no short text.

    Raises:
        ConfigError: an item is too long, its prompt has too few tokens, a continuation has none, or both continuations
            have the same.
        ModelError: the tokenizer fails.
    """
    assert cutter.min_length == 1
    return [_tokenised(item, cutter) for item in items]


def _tokenised(item: TaskItem, cutter: PassageCutter) -> TokenisedItem:
    spans = [_span(item, name, text, cutter) for name, text in zip(CONTINUATIONS, item[-2:], strict=True)]
    past = [sum(1 for _ in takewhile(lambda offset: offset[1] <= len(item.prompt), span.offsets)) for span in spans]
    for name, span, own in zip(CONTINUATIONS, spans, past, strict=True):
        if own == len(span.token_ids):
            raise ConfigError(f"{item.where}: the model's tokenizer has no token for `{name}`")
    first_ids, second_ids = (span.token_ids for span in spans)
    if first_ids == second_ids:
        raise ConfigError(f"{item.where}: `correct` and `wrong` are the same tokens to the model")
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first_ids, second_ids, strict=False)))
    first = len(cutter.prefix) + min(*past, alike)
    if first < 2:
        raise ConfigError(f"{item.where}: `prompt` is too short for the model's tokenizer; write some words more")
    correct, wrong = (_marked(cutter, span, first) for span in spans)
    return TokenisedItem(correct, wrong)


def _span(item: TaskItem, name: str, text: str, cutter: PassageCutter) -> TokenSpan:
    """The tokens of the prompt and one continuation.

    Raises:
        ConfigError: they do not fit one passage.
    """
    spans = list(cutter.spans(item.prompt + text))
    if len(spans) == 1:
        return spans[0]
    if not spans:
        raise ConfigError(f"{item.where}: the model's tokenizer has no token for `{name}`")
    special = len(cutter.prefix) + len(cutter.suffix)
    tokens, most = special + sum(len(span.token_ids) for span in spans), special + cutter.span_tokens
    raise ConfigError(
        f"{item.where}: with `{name}` it has {tokens:,} tokens, and the result was made with --max_length {most:,}; "
        "shorten the prompt"
    )


def _marked(cutter: PassageCutter, span: TokenSpan, first: int) -> MarkedTokens:
    ids = cutter.sequence(span)
    position = np.arange(len(ids))
    return MarkedTokens(ids, (position >= first) & (position < len(ids) - len(cutter.suffix)))
