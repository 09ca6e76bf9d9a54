"""Similarity of passages by their words, to find near misses."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from stratalens.corpus import Half
from stratalens.corpus.words import FUNCTION_WORDS
from stratalens.evidence.passages import Passage
from stratalens.files.hashing import hash64


class PassageSet:
    """The passages of one half, with the arrays from which near misses and detection tasks are chosen.

    Args:
        passages: all passages of the evidence.
        half: which of them are in the set.

    Attributes:
        numbers: index of each passage of the set among all passages.
        side: side of each passage.
        document: hash of each passage's document.
        order: hash of each passage, to put passages in a random but fixed order.
        vectors: TF-IDF row of each passage.
    """

    def __init__(self, passages: Sequence[Passage], half: Half):
        self.numbers = np.array([n for n, p in enumerate(passages) if p.half == half], dtype=np.int64)
        chosen = [passages[n] for n in self.numbers]
        self.side = np.array([int(p.side) for p in chosen], dtype=np.int64)
        self.document = np.array([p.document for p in chosen], dtype=np.uint64)
        self.order = np.array([hash64("task", *p.location) for p in chosen], dtype=np.uint64)
        self.vectors = _vectors([p.text for p in chosen])

    def similarity(self, chosen: Int[np.ndarray, "chosen_passage"]) -> Float[np.ndarray, "passage"]:
        """Cosine similarity, by words (TF-IDF), of each passage to the mean of some chosen ones."""
        centre = np.asarray(self.vectors[chosen].mean(axis=0)).ravel()
        return np.asarray(self.vectors @ centre).ravel() / max(1e-12, float(np.linalg.norm(centre)))


def passage_sets(passages: Sequence[Passage]) -> dict[Half, PassageSet]:
    """Half -> its passages."""
    return {half: PassageSet(passages, half) for half in Half}


def _vectors(texts: list[str]):
    """Sparse TF-IDF rows; a single column of zeros where no text has a word."""
    vectorizer = TfidfVectorizer(stop_words=sorted(FUNCTION_WORDS))
    try:
        return vectorizer.fit_transform(texts)
    except ValueError:  # no texts, or no word in any of them
        return sparse.csr_array((len(texts), 1))
