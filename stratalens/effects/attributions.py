"""Attributions of all latents of a hookpoint: of passages, of documents, and their means over the documents of a side.

An attribution is what the gradient predicts for the change of the loss when a latent is removed: above 0 where the
model loses by that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

SIDES = ("domain", "general")
"""The sides of documents, in the order of the axis `side`."""


class Attributions(NamedTuple):
    """Attributions of the latents that fire, one entry for each passage or document and latent; all others are 0."""

    row: Int[np.ndarray, "entry"]
    """Index of the passage or document, never falling."""
    latent: Int[np.ndarray, "entry"]
    """Rising within a row."""
    value: Float[np.ndarray, "entry"]
    """Change of the sum of losses in the passage or document, in nats; float64."""

    def by_document(self, document: Int[np.ndarray, "passage"]) -> "Attributions":
        """Add up the passages of each document.

        Args:
            document: index of the document of each passage.
        """
        return _summed(Attributions(document[self.row], self.latent, self.value))

    def of_latents(self, latents: Sequence[int], rows: int) -> Float[np.ndarray, "latent row"]:
        """Attribution of some latents to every passage or document, in nats.

        Args:
            latents: different ones, in any order.
            rows: number of passages or documents.
        """
        numbers = np.asarray(latents, np.int64)
        order = np.argsort(numbers)
        values = np.zeros((len(numbers), rows))
        if len(numbers):
            place = np.minimum(np.searchsorted(numbers[order], self.latent), len(numbers) - 1)
            wanted = numbers[order][place] == self.latent
            values[order[place[wanted]], self.row[wanted]] = self.value[wanted]
        return values


NO_ATTRIBUTIONS = Attributions(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def joined(parts: Sequence[Attributions]) -> Attributions:
    """The attributions of several batches together, in order; no passage is in two of them."""
    return _summed(Attributions(*(np.concatenate(columns) for columns in zip(NO_ATTRIBUTIONS, *parts, strict=True))))


def _summed(found: Attributions) -> Attributions:
    """Bring entries into order, and add up those of the same row and latent in the order in which they stand."""
    order = np.lexsort((found.latent, found.row))
    row, latent, value = (column[order] for column in found)
    if not len(row):
        return NO_ATTRIBUTIONS
    new = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(latent, prepend=-1) != 0))
    return Attributions(row[new], latent[new], np.add.reduceat(value, new))


@dataclass(frozen=True)
class AttributionSums:
    """Sums over the documents of each side of the attributions of every latent, in nats a token of the document."""

    documents: Int[np.ndarray, "side"]
    """Documents, with those on which a latent does not fire: there its attribution is 0."""
    total: Float[np.ndarray, "side latent"]
    squares: Float[np.ndarray, "side latent"]
    """Of the squares."""

    @classmethod
    def of(
        cls,
        found: Attributions,
        domain: Bool[np.ndarray, "document"],
        tokens: Int[np.ndarray, "document"],
        num_latents: int,
    ) -> "AttributionSums":
        """Sums over some documents.

        Args:
            found: attributions to each document.
            domain: whether each document is of the domain, and not general.
            tokens: predicted tokens of each document that count, at least one.
            num_latents: number of latents.
        """
        value = found.value / tokens[found.row]
        key = np.where(domain[found.row], 0, 1) * num_latents + found.latent
        shape = (len(SIDES), num_latents)
        total, squares = np.zeros(shape), np.zeros(shape)
        np.add.at(total.reshape(-1), key, value)
        np.add.at(squares.reshape(-1), key, value**2)
        return cls(np.array([domain.sum(), (~domain).sum()]), total, squares)

    def plus(self, other: "AttributionSums") -> "AttributionSums":
        """Sums over the documents of both."""
        return AttributionSums(self.documents + other.documents, self.total + other.total, self.squares + other.squares)

    def means(self) -> Float[np.ndarray, "side latent"]:
        """Means over documents, in nats a token; nan on a side without any."""
        with np.errstate(invalid="ignore"):
            return self.total / self.documents[:, None]

    def standard_errors(self) -> Float[np.ndarray, "side latent"]:
        """Standard errors of the means: of documents drawn independently; nan on a side with fewer than two."""
        number = self.documents[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            deviations = np.maximum(self.squares - self.total**2 / number, 0)
            return np.where(number > 1, np.sqrt(deviations / (number - 1.0) / number), np.nan)
