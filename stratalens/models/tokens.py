"""Cut documents into passages of tokens."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from stratalens.errors import ModelError
from stratalens.models.panics import is_panic

MAX_PIECE_CHARACTERS = 50_000
"""A longer text is tokenised in pieces, cut at white space, so that memory does not grow with the document."""

PROBES = ("a", "e", "1", ".", "的")
"""Texts of which one shows where a tokenizer adds special tokens; one that it leaves out shows nothing."""
PROBE_CHARACTERS_PER_TOKEN = 32
"""A text is first tested for length on this many characters from its start, times the minimum length in tokens."""


@runtime_checkable
class Tokenizer(Protocol):
    """The methods and attributes of a Hugging Face tokenizer that are used here."""

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
    """A part of a document that is tokenised in one call."""

    start: int
    """Its first character in the document."""
    text: str


def pieces(text: str) -> Iterator[TextPiece]:
    """Cut a document into pieces of at most `MAX_PIECE_CHARACTERS`, at white space where there is any."""
    start = 0
    while len(text) - start > MAX_PIECE_CHARACTERS:
        end = start + MAX_PIECE_CHARACTERS
        cut = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
        end = cut if cut > start else end
        yield TextPiece(start, text[start:end])
        start = end
    yield TextPiece(start, text[start:])


class PassageCutter:
    """Cuts documents into passages of at most `max_length` tokens, special tokens included.

    Special tokens are the ones that the tokenizer itself adds to plain text (for Llama a BOS); no chat template.

    Args:
        tokenizer: that of the model.
        max_length: most tokens of a passage.
        min_length: fewest tokens of a passage, special tokens left out.
        known_ids: the model has vectors for the ids below this. The name of a special token beyond them, in a text, is
            read as text.

    Raises:
        ModelError: the tokenizer fails, then or on a later text.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, min_length: int = 2, known_ids: int | None = None):
        self.tokenizer = tokenizer
        self.known_ids = known_ids
        encoded = (self._encoded(text, add_special_tokens=False)["input_ids"] for text in PROBES)
        probe = next((text for text, own in zip(PROBES, encoded, strict=True) if own), self._own_text())
        framed = list(self._encoded(probe, add_special_tokens=True)["input_ids"])
        bare = list(self._encoded(probe, add_special_tokens=False)["input_ids"])
        start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), None)
        if start is None:
            raise self._damaged("it changes a text to which it adds special tokens")
        self.prefix, self.suffix = framed[:start], framed[start + len(bare) :]
        self.span_tokens = max_length - len(self.prefix) - len(self.suffix)
        if self.span_tokens < 1:
            raise ModelError(
                f"{self._name}: its tokenizer adds {len(framed) - len(bare):,} special tokens to a passage, so that "
                f"--max_length {max_length} leaves no room for text; give a larger --max_length"
            )
        self.min_length = min(min_length, self.span_tokens)
        marked_special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids = frozenset(marked_special.union(tokenizer.all_special_ids))

    def _own_text(self) -> str:
        """The text of a token, for a tokenizer that leaves out the characters it does not know."""
        tokenizer: Any = self.tokenizer
        known = (tokenizer.decode([number]).strip() for number in sorted(tokenizer.get_vocab().values()))
        tokens = (text for text in known if text and self._encoded(text, add_special_tokens=False)["input_ids"])
        return next((text for text in tokens if text not in tokenizer.all_special_tokens), "a")

    def spans(self, text: str) -> Iterator[TokenSpan]:
        """Yield the spans of a document in order; a remainder shorter than `min_length` tokens is left out."""
        for piece in pieces(text):
            yield from self.piece_spans(piece)

    def piece_spans(self, piece: TextPiece) -> Iterator[TokenSpan]:
        """Yield the spans of one piece of a document."""
        start, text = piece
        encoded = self._encoded(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        for first in range(0, len(ids), self.span_tokens):
            chunk = ids[first : first + self.span_tokens]
            if len(chunk) < self.min_length:
                continue
            in_document = [(start + a, start + b) for a, b in offsets[first : first + self.span_tokens]]
            yield TokenSpan(chunk, in_document[0][0], in_document[-1][1], in_document)

    def first_spans(self, text: str, count: int) -> list[TokenSpan]:
        """The first `count` spans of a document, or all if there are fewer."""
        return list(islice(self.spans(text), count))

    def too_short(self, text: str) -> bool:
        """Whether a document gives no passage. For a long one it is usually enough to tokenise its start."""
        start = text[: PROBE_CHARACTERS_PER_TOKEN * self.min_length]
        tokens = self._encoded(start, add_special_tokens=False, verbose=False)["input_ids"]
        if len(start) < len(text) and len(tokens) >= 2 * self.min_length:  # tokens at the cut may differ
            return False
        return not self.first_spans(text, 1)

    def _encoded(self, text: str, **options: object) -> Mapping[str, list]:
        """Tokenise a text; the library in Rust raises a bare Exception or panics where a tokenizer is inconsistent.

        Raises:
            ModelError: the tokenizer fails.
        """
        try:
            encoded = self.tokenizer(text, **options)
            if self.known_ids is not None and max(encoded["input_ids"], default=0) >= self.known_ids:
                encoded = self.tokenizer(text, split_special_tokens=True, **options)
            return encoded
        except BaseException as error:
            if not (is_panic(error) or type(error) is Exception):
                raise
            raise self._damaged(error) from None

    @property
    def _name(self) -> str:
        return getattr(self.tokenizer, "name_or_path", "the model")

    def _damaged(self, reason: object) -> ModelError:
        said = " ".join(str(reason).split())[:200]
        return ModelError(f"{self._name}: its tokenizer is damaged ({said}); copy or download the model again")

    def token_text(self, token_ids: list[int]) -> str:
        """Text of token ids; `<no token 305>` for an id that is none of the tokenizer's."""
        text = self.tokenizer.decode(token_ids)
        if text or len(token_ids) != 1 or token_ids[0] in self._ids:
            return text
        return f"<no token {token_ids[0]}>"

    @cached_property
    def _ids(self) -> frozenset[int]:
        """Ids that have a token; some between them may have none."""
        tokenizer: Any = self.tokenizer
        return frozenset(tokenizer.get_vocab().values())

    @cached_property
    def ordinary_ids(self) -> Int[np.ndarray, "token"]:
        """Ids that the tokenizer gives to text and that the model knows, rising; no special and no added tokens."""
        added = {*self.special_ids, *self.tokenizer.added_tokens_decoder}
        ids = (number for number in self._ids if number not in added)
        known = sorted(number for number in ids if self.known_ids is None or number < self.known_ids)
        return np.array(known, dtype=np.int64)

    def sequence(self, span: TokenSpan) -> np.ndarray:
        """Token ids `[seq]` for the model, int64: the span between the special tokens that the tokenizer adds."""
        return np.asarray([*self.prefix, *span.token_ids, *self.suffix], dtype=np.int64)

    def prompt(self, text: str) -> np.ndarray:
        """Token ids `[seq]` of a text that the model is to continue, int64: nothing is cut, and nothing ends it.

        Raises:
            ModelError: the tokenizer fails.
        """
        ids = self._encoded(text, add_special_tokens=False, verbose=False)["input_ids"]
        return np.asarray([*self.prefix, *ids], dtype=np.int64) if ids else np.zeros(0, np.int64)

    def token_offsets(self, span: TokenSpan) -> Int[np.ndarray, "seq 2"]:
        """First character of each token of `sequence`, and one past its last, counted from the start of the span.

        Special tokens have no characters: theirs are (0, 0).
        """
        span_offsets = [(a - span.start, b - span.start) for a, b in span.offsets]
        return np.asarray([*[(0, 0)] * len(self.prefix), *span_offsets, *[(0, 0)] * len(self.suffix)], dtype=np.int64)
