"""How alike passages are in their words, to find near misses."""

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
    """Passages of one half, with what tasks and near misses are drawn by."""

    def __init__(self, passages: Sequence[Passage], half: Half):
        self.numbers = np.array([n for n, p in enumerate(passages) if p.half == half], dtype=np.int64)
        own = [passages[n] for n in self.numbers]
        self.side = np.array([int(p.side) for p in own], dtype=np.int64)
        self.document = np.array([p.document for p in own], dtype=np.uint64)
        self.order = np.array([hash64("task", *p.place) for p in own], dtype=np.uint64)
        self.vectors = _vectors([p.text for p in own])

    def similarity(self, to: Int[np.ndarray, "some"]) -> Float[np.ndarray, "passage"]:
        """Cosine of each passage's words (TF-IDF) to the centre of some."""
        centre = np.asarray(self.vectors[to].mean(axis=0)).ravel()
        return np.asarray(self.vectors @ centre).ravel() / max(1e-12, float(np.linalg.norm(centre)))


def _vectors(texts: list[str]):
    """Sparse TF-IDF rows; one empty column where no text holds a word."""
    vectorizer = TfidfVectorizer(stop_words=sorted(FUNCTION_WORDS))
    try:
        return vectorizer.fit_transform(texts)
    except ValueError:  # no text, or no word in any
        return sparse.csr_array((len(texts), 1))
