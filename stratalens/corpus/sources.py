"""Where the sampled documents are from: their files, or what a column says."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8, Int16, UInt64

from stratalens.corpus.names import NO_NAME


@dataclass(frozen=True)
class DocumentSources:
    """The sampled documents of both sides, and the source of each."""

    document: UInt64[np.ndarray, "document"]
    """Hashes of the documents, rising."""
    population: Int8[np.ndarray, "document"]
    """Number of the document's population."""
    source: Int16[np.ndarray, "document"]
    """Index into the names of its side, or `NO_NAME`."""
    names: tuple[tuple[str, ...], tuple[str, ...]]
    """Names of the sources, by side; empty where there are too many to tell apart."""

    def of(self, documents: UInt64[np.ndarray, "other_document"]) -> Int16[np.ndarray, "other_document"]:
        """Source of each of these documents; `NO_NAME` where it is not known."""
        if not len(self.document):
            return np.full(len(documents), NO_NAME, np.int16)
        index = np.minimum(np.searchsorted(self.document, documents), len(self.document) - 1)
        return np.where(self.document[index] == documents, self.source[index], NO_NAME).astype(np.int16)


NO_SOURCES = DocumentSources(np.zeros(0, np.uint64), np.zeros(0, np.int8), np.zeros(0, np.int16), ((), ()))
"""Those of a result that does not say which documents it has."""
