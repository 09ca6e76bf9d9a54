"""Documents cut into passages of tokens."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

PIECE_CHARACTERS = 50_000
"""A longer text is tokenised piece by piece, cut at white space, so that memory stays flat on huge documents."""


START_CHARACTERS = 32
"""Characters, for each token of the least length, that are tried to tell that a text is not too short."""


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    all_special_ids: list[int]
    added_tokens_decoder: dict[int, Any]

    def __call__(self, text: str, **options: object) -> Mapping[str, list]:
        """Token ids and offsets of a text."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Text of token ids."""
        ...


class TokenSpan(NamedTuple):
    """A run of tokens that fits one passage, before special tokens are added."""

    token_ids: list[int]
    start: int
    """First character of the span in its document."""
    end: int
    """One past the last character of the span in its document."""
    offsets: list[tuple[int, int]]
    """First character of each token in the document, and one past its last."""


class TextPiece(NamedTuple):
    """A stretch of a document that is tokenised at once."""

    start: int
    """Its first character in the document."""
    text: str


def pieces(text: str) -> Iterator[TextPiece]:
    """Cut a document into pieces of at most `PIECE_CHARACTERS`, where it can be at white space."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        cut = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
        end = cut if cut > start else end
        yield TextPiece(start, text[start:end])
        start = end
    yield TextPiece(start, text[start:])


class PassageCutter:
    """Cuts documents into passages of at most `max_length` tokens, special tokens included.

    Special tokens are the ones that the tokenizer itself adds to plain text (for Llama a BOS); no chat template.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, min_length: int = 2):
        self.tokenizer = tokenizer
        probe = list(tokenizer("a", add_special_tokens=True)["input_ids"])
        bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        at = next(i for i in range(len(probe)) if probe[i : i + len(bare)] == bare)
        self.prefix, self.suffix = probe[:at], probe[at + len(bare) :]
        self.span_tokens = max_length - len(self.prefix) - len(self.suffix)
        self.min_length = min(min_length, self.span_tokens)
        marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids = frozenset(marked.union(tokenizer.all_special_ids))

    def spans(self, text: str) -> Iterator[TokenSpan]:
        """Yield the spans of a document in order; tails shorter than `min_length` tokens are left out."""
        for piece in pieces(text):
            yield from self.piece_spans(piece)

    def piece_spans(self, piece: TextPiece) -> Iterator[TokenSpan]:
        """Yield the spans of one piece of a document."""
        start, text = piece
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        for first in range(0, len(ids), self.span_tokens):
            chunk = ids[first : first + self.span_tokens]
            if len(chunk) < self.min_length:
                continue
            where = [(start + a, start + b) for a, b in offsets[first : first + self.span_tokens]]
            yield TokenSpan(chunk, where[0][0], where[-1][1], where)

    def first_spans(self, text: str, count: int) -> list[TokenSpan]:
        """At most the first `count` spans of a document."""
        return list(islice(self.spans(text), count))

    def too_short(self, text: str) -> bool:
        """Whether nothing of a document would be read; the start of a long one is enough to see that it is not."""
        start = text[: START_CHARACTERS * self.min_length]
        tokens = self.tokenizer(start, add_special_tokens=False, verbose=False)["input_ids"]
        if len(start) < len(text) and len(tokens) >= 2 * self.min_length:  # tokens at the cut may differ
            return False
        return not self.first_spans(text, 1)

    def sequence(self, span: TokenSpan) -> np.ndarray:
        """Token ids `[seq]` to feed the model: the span between the tokenizer's own special tokens."""
        return np.asarray([*self.prefix, *span.token_ids, *self.suffix], dtype=np.int64)

    def token_offsets(self, span: TokenSpan) -> Int[np.ndarray, "seq 2"]:
        """Characters of each token of `sequence`, counted from the span's start; special tokens have none."""
        own = [(a - span.start, b - span.start) for a, b in span.offsets]
        return np.asarray([*[(0, 0)] * len(self.prefix), *own, *[(0, 0)] * len(self.suffix)], dtype=np.int64)
