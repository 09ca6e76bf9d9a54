"""The token-level codes that stay in the result: of whole documents first, then of the strongest passages."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from stratalens.files.damaged import READ_ERRORS
from stratalens.files.result_names import EVIDENCE_FOLDER
from stratalens.harvest.codes_file import CodesFile, CodesWriter
from stratalens.harvest.keep_plan import KeepPlan
from stratalens.harvest.state.top_examples import TopExamples
from stratalens.harvest.store import ShardStore
from stratalens.hookpoint import Hookpoint

ROW_ENTRIES = 64
"""What a passage takes in a file besides its codes, in entries."""


def codes_path(hookpoint: Hookpoint) -> Path:
    """Path of the codes of one layer, relative to the result directory."""
    return Path(EVIDENCE_FOLDER) / f"codes_layer_{hookpoint}.parquet"


def belongs_to(path: Path, key: str) -> bool:
    """Whether there is a file of codes of the harvest with this key."""
    try:
        with CodesFile(path) as file:
            return file.key == key
    except READ_ERRORS:
        return False


@dataclass(frozen=True)
class KeptLayer:
    """Chooses and writes the codes of one layer that stay."""

    store: ShardStore
    """Holds the codes of each shard."""
    hookpoint: Hookpoint
    keys: Sequence[str]
    """Keys of the codes of the shards, in their order."""
    plan: KeepPlan

    def write(self, path: Path, key: str, examples: TopExamples) -> None:
        """Write the chosen codes as one file.

        Args:
            path: of the file.
            key: of the harvest of the layer.
            examples: the strongest passages of every latent.

        Raises:
            OutputError: the codes of a shard were removed or damaged.
        """
        places = self._places()
        chosen = choose(places, self.plan, examples, self.plan.layer_bytes[self.hookpoint])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as sink:
            writer = CodesWriter(sink, key)
            for number, file in self._files():
                kept, first = chosen[places.shard == number], 0
                for group in file.groups():
                    writer.add(group.filter(kept[first : first + len(group)]))
                    first += len(group)
            writer.close()

    def _places(self) -> "Places":
        """Every passage with codes, in the order of the shards."""
        tables = []
        for number, file in self._files():
            table = file.places()
            content, start, document, whole, entries = (
                table.column(name).to_numpy() for name in ("content", "start", "document", "whole", "entries")
            )
            weight = entries + ROW_ENTRIES
            size = file.size * weight / max(1, weight.sum())
            tables.append((content, start, document, whole, size, np.full(len(content), number)))
        return Places(*map(np.concatenate, zip(*tables, strict=True)))

    def _files(self) -> Iterator[tuple[int, CodesFile]]:
        for number, key in enumerate(self.keys):
            with CodesFile(io.BytesIO(self.store.content(self.hookpoint, key))) as file:
                yield number, file


class Places(NamedTuple):
    """Passages with codes."""

    content: UInt64[np.ndarray, "passage"]
    start: Int[np.ndarray, "passage"]
    document: UInt64[np.ndarray, "passage"]
    whole: Bool[np.ndarray, "passage"]
    """Whether all passages of the document have codes."""
    size: Float[np.ndarray, "passage"]
    """In bytes."""
    shard: Int[np.ndarray, "passage"]
    """Number of the shard that it is in."""


def choose(places: Places, plan: KeepPlan, examples: TopExamples, budget: int) -> Bool[np.ndarray, "passage"]:
    """Which passages stay: documents in the order of the plan while they fit, then strongest passages by their hashes.

    Args:
        places: passages with codes.
        plan: which documents are kept whole.
        examples: the strongest passages of every latent.
        budget: bytes that all may take.
    """
    whole = np.flatnonzero(places.whole)
    rank = np.array([plan.documents[document] for document in places.document[whole].tolist()], np.int64)
    size_of_rank = np.bincount(rank, places.size[whole])
    chosen = np.zeros(len(places.content), bool)
    chosen[whole] = np.cumsum(size_of_rank)[rank] <= budget
    left = budget - places.size[chosen].sum()
    strongest = set(zip(examples.content.tolist(), examples.start.tolist(), strict=True))
    own = zip(places.content.tolist(), places.start.tolist(), places.whole.tolist(), strict=True)
    candidates = np.array(
        [n for n, (*place, kept) in enumerate(own) if not kept and tuple(place) in strongest], np.int64
    )
    candidates = candidates[np.lexsort((places.start[candidates], places.content[candidates]))]
    chosen[candidates[np.cumsum(places.size[candidates]) <= left]] = True
    return chosen
