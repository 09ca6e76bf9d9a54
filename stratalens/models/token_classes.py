"""Classes of vocabulary tokens, to describe the kind of token that a latent fires on."""

import unicodedata
from enum import IntEnum

import numpy as np
from jaxtyping import Int


class TokenClass(IntEnum):
    """Classes of a token's text. They exclude one another: the first that applies is taken."""

    DIGITS = 0
    CURRENCY_OR_PERCENT = 1
    PUNCTUATION = 2
    CAPITALISED = 3
    OTHER = 4


TOKEN_CLASSES = tuple(TokenClass)


def token_class(text: str) -> TokenClass:
    """Class of one token's text, white space around it left out."""
    text = text.strip()
    if any(ch.isdigit() for ch in text):
        return TokenClass.DIGITS
    if any(ch in "%‰" or unicodedata.category(ch) == "Sc" for ch in text):
        return TokenClass.CURRENCY_OR_PERCENT
    if not any(ch.isalpha() for ch in text):
        return TokenClass.PUNCTUATION
    return TokenClass.CAPITALISED if text[0].isupper() else TokenClass.OTHER


def vocabulary_classes(tokenizer, size: int | None = None) -> Int[np.ndarray, "vocabulary"]:
    """Class of every token id, int64; ids that decode to no text (bytes of a longer character) are punctuation.

    Args:
        tokenizer: ids may be missing among its tokens.
        size: number of ids; None for all up to the tokenizer's highest.
    """
    size = 1 + max(tokenizer.get_vocab().values()) if size is None else size
    texts = tokenizer.batch_decode([[i] for i in range(size)], clean_up_tokenization_spaces=False)
    return np.array([token_class(text) for text in texts], dtype=np.int64)
