"""The populations of documents: (domain or general) x (discovery or confirmation) x stratum."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Side(IntEnum):
    """The two sides of a contrast."""

    DOMAIN = 0
    GENERAL = 1


class Half(IntEnum):
    """Features are selected on discovery documents and estimated on confirmation documents."""

    DISCOVERY = 0
    CONFIRMATION = 1


class Population(NamedTuple):
    """A population of documents."""

    side: Side
    half: Half
    stratum: int = 0
    """Kind of text, an index of `Populations.strata`."""

    @property
    def number(self) -> int:
        """Index along the population axis of every statistic."""
        return self.stratum * len(Side) * len(Half) + self.side * len(Half) + self.half

    @classmethod
    def numbered(cls, number: int) -> "Population":
        """The population with an index."""
        rest, half = divmod(number, len(Half))
        stratum, side = divmod(rest, len(Side))
        return cls(Side(side), Half(half), stratum)


@dataclass(frozen=True)
class Populations:
    """All populations of a run. Only this module computes with their numbers."""

    strata: tuple[str, ...] = ("",)
    """Names of the kinds of text, at least one; a single one has no name."""
    exchanged: bool = False
    """Whether domain documents play the general side and general ones the domain."""

    def __len__(self) -> int:
        return len(Side) * len(Half) * len(self.strata)

    def __iter__(self) -> Iterator[Population]:
        return map(Population.numbered, range(len(self)))

    @cached_property
    def sides(self) -> Int[np.ndarray, "population"]:
        """Side of each population, by its number."""
        return np.array([self._side(population) for population in self], np.int64)

    @cached_property
    def halves(self) -> Int[np.ndarray, "population"]:
        """Half of each population, by its number."""
        return np.array([population.half for population in self], np.int64)

    def where(
        self, *, side: Side | None = None, half: Half | None = None, stratum: int | None = None
    ) -> Int[np.ndarray, "chosen"]:
        """Numbers of the populations of a side, a half and a stratum; None takes all."""
        wanted = (side, half, stratum)
        chosen = [
            population.number
            for population in self
            if all(
                want is None or want == own
                for want, own in zip(wanted, (self._side(population), *population[1:]), strict=True)
            )
        ]
        return np.array(chosen, np.int64)

    def _side(self, population: Population) -> Side:
        """The side that the documents of a population play."""
        return Side(1 - population.side) if self.exchanged else population.side


def side_name(domain: str, side: int) -> str:
    """Name of a side in messages and results: the domain's own name, or `general`."""
    return domain if side == Side.DOMAIN else "general"
