"""Evidence from the token-level codes that a harvest keeps: without the model and without the corpus."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stratalens.corpus.populations import Population
from stratalens.evidence.evidence import NO_ENTRIES, Evidence, FiredEntries, LayerEvidence, first_tokens
from stratalens.evidence.passages import Passage, PassageLocation, is_valid, sampled_span
from stratalens.files.damaged import READ_ERRORS, damaged
from stratalens.harvest.codes_file import CodesFile
from stratalens.harvest.token_codes import ENTRIES
from stratalens.hookpoint import Hookpoint

if TYPE_CHECKING:
    import pyarrow

PLACE = ["content", "start", "end"]
"""Columns that name a passage."""


class WantedPassages(NamedTuple):
    """The passages that evidence is made of."""

    locations: frozenset[PassageLocation]
    """The strongest passages of the features."""
    texts: frozenset[int]
    """Hashes of the sampled texts, of which one passage each is wanted."""

    def __bool__(self) -> bool:
        return bool(self.locations or self.texts)


class FoundEvidence(NamedTuple):
    """What of the evidence the kept codes hold."""

    evidence: Evidence
    missing: WantedPassages
    """What they do not hold of every layer."""


@dataclass(frozen=True)
class KeptCodes:
    """The codes of some layers, on disk."""

    paths: Mapping[Hookpoint, Path]
    """Hookpoint -> the file of its codes."""

    def find(self, features: Mapping[Hookpoint, Sequence[int]], wanted: WantedPassages) -> FoundEvidence:
        """Read the activations of some features on the wanted passages.

        Args:
            features: hookpoint -> latents.
            wanted: passages.

        Raises:
            ConfigError: a file is damaged.
        """
        nothing = Evidence([], {place: LayerEvidence.of(NO_ENTRIES, own, 0) for place, own in features.items()})
        if not features or not all(place in self.paths and self.paths[place].is_file() for place in features):
            return FoundEvidence(nothing, wanted)
        places = self._common_places(features)
        sampled = _sampled_locations(places, wanted.texts)
        chosen = wanted.locations.intersection(places) | sampled
        missing = WantedPassages(
            wanted.locations.difference(places), wanted.texts - {place.content for place in sampled}
        )
        passages = self._passages(self.paths[next(iter(features))], chosen, sampled)
        layers = {place: self._activations(place, own, passages) for place, own in features.items()}
        return FoundEvidence(Evidence(passages, layers), missing)

    def _common_places(self, hookpoints: Mapping[Hookpoint, Sequence[int]]) -> dict[PassageLocation, bool]:
        """The passages that are kept of all these layers -> whether all passages of their document are."""
        layers = []
        for hookpoint in hookpoints:
            own: dict[PassageLocation, bool] = {}
            for group in _read(self.paths[hookpoint], [*PLACE, "whole"]):
                own |= zip(_locations(group), group.column("whole").to_pylist(), strict=True)
            layers.append(own)
        shared = set[PassageLocation].intersection(*map(set, layers))
        return {place: all(own[place] for own in layers) for place in shared}

    def _passages(
        self, path: Path, chosen: frozenset[PassageLocation], sampled: frozenset[PassageLocation]
    ) -> list[Passage]:
        """The chosen passages, in the order in which evidence has them."""
        columns = [*PLACE, "document", "population", "text", "token_ids", "offsets"]
        rows = [
            row
            for group in _read(path, columns)
            for row in group.filter([place in chosen for place in _locations(group)]).to_pylist()
        ]
        passages = [
            Passage(
                location=_location(row),
                document=row["document"],
                population=Population.numbered(row["population"]),
                text=row["text"],
                token_ids=np.array(row["token_ids"], np.int64),
                offsets=np.array(row["offsets"], np.int64).reshape(-1, 2),
                sampled=_location(row) in sampled,
            )
            for row in rows
        ]
        if not all(map(is_valid, passages)):
            raise damaged(path, "a passage does not fit its tokens")
        return sorted(passages, key=lambda passage: (passage.population, passage.location))

    def _activations(self, hookpoint: Hookpoint, features: Sequence[int], passages: Sequence[Passage]) -> LayerEvidence:
        """Activations of some features of a layer on the tokens of these passages."""
        starts = first_tokens(passages)
        number = {passage.location: at for at, passage in enumerate(passages)}
        column = {int(feature): at for at, feature in enumerate(features)}
        wanted = np.array(sorted(column), np.int64)
        parts = [NO_ENTRIES]
        for group in _read(self.paths[hookpoint], [*PLACE, "entries", *ENTRIES]):
            own = np.array([number.get(place, -1) for place in _locations(group)], np.int64)
            passage = np.repeat(own, group.column("entries").to_numpy())
            position, latent, value = (group.column(name).combine_chunks().values.to_numpy() for name in ENTRIES)
            kept = np.flatnonzero((passage >= 0) & np.isin(latent, wanted))
            token = starts[passage[kept]] + position[kept]
            if (token >= starts[passage[kept] + 1]).any():
                raise damaged(self.paths[hookpoint], "a code of a token that is not there")
            columns = np.array([column[feature] for feature in latent[kept].tolist()], np.int32)
            parts.append(FiredEntries(token.astype(np.int32), columns, value[kept]))
        joined = FiredEntries(*(np.concatenate(own) for own in zip(*parts, strict=True)))
        return LayerEvidence.of(joined, features, int(starts[-1]))


def _read(path: Path, columns: Sequence[str]) -> "Iterator[pyarrow.Table]":
    """Read some columns of a file of codes, a group of passages at a time.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        with CodesFile(path) as file:
            yield from file.groups(columns)
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def _location(row: Mapping[str, int]) -> PassageLocation:
    return PassageLocation(row["content"], row["start"], row["end"])


def _locations(group: "pyarrow.Table") -> Iterator[PassageLocation]:
    return map(PassageLocation, *(group.column(name).to_pylist() for name in PLACE))


def _sampled_locations(places: Mapping[PassageLocation, bool], texts: frozenset[int]) -> frozenset[PassageLocation]:
    """The passage that stands for each of these texts, where all passages of its document are kept."""
    spans: dict[int, list[PassageLocation]] = {}
    for place in sorted(place for place, whole in places.items() if whole and place.content in texts):
        spans.setdefault(place.content, []).append(place)
    return frozenset(own[sampled_span(content, len(own))] for content, own in spans.items())
