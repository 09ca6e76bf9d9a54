"""All of the text, shard by shard: what an earlier run has read is taken from disk, the rest goes to the workers."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stratalens.files.atomic import read_sealed, write_sealed
from stratalens.files.output_dir import Workplace
from stratalens.harvest.context import Facts, ReadingContext, changed
from stratalens.harvest.shards import Shard
from stratalens.harvest.store import (
    HarvestFile,
    ShardStore,
    harvest_path,
    key_of,
)
from stratalens.harvest.workers import Task, Workers

CONTEXT_FILE = "context.json"


@dataclass(frozen=True)
class Reading:
    """What is to be read and where it is kept."""

    context: ReadingContext
    cut: Callable[[], Iterable[Shard]]
    """Cuts the text into its shards, the same ones at every call."""
    place: Workplace
    """May hold shards of a run that was stopped, and the harvest of a finished one."""
    result_facts: Facts | None
    """What the finished result there was read with; None where there is none."""
    refresh: bool
    """Whether to leave aside what is there."""
    say: Callable[[str], None]
    on_rows: Callable[[int], None]
    """Called with the corpus rows of shards that are there already."""

    def harvest(self, workers: Workers, passes: Iterable[tuple[int, ...]]) -> dict[int, HarvestFile]:
        """Read what is missing, and fold the shards of each layer.

        Args:
            workers: who reads.
            passes: groups of layers that are read together, one group after the other.
        """
        if self.refresh:
            shutil.rmtree(self.place.shards, ignore_errors=True)
        self._notice_changes()
        ready = {} if self.refresh else self._finished()
        store = ShardStore(self.place.shards)
        for layers in passes:
            wanted = tuple(layer for layer in layers if layer not in ready)
            for layer, keys in (self._read(store, wanted, workers) if wanted else {}).items():
                ready[layer] = HarvestFile(self.place.staging / harvest_path(layer), key_of(keys))
                ready[layer].write(store.fold(layer, keys))
        return {layer: ready[layer] for layer in self.context.layers}

    def _read(self, store: ShardStore, layers: tuple[int, ...], workers: Workers) -> dict[int, list[str]]:
        """Layer -> keys of its shards in order, all of which are in the store afterwards."""
        keys: dict[int, list[str]] = {layer: [] for layer in layers}
        for done in workers.read(layers, self._missing(store, layers, keys)):
            for layer, packed in done.packed.items():
                store.write(layer, keys[layer][done.number], packed)
        return keys

    def _missing(self, store: ShardStore, layers: tuple[int, ...], keys: dict[int, list[str]]) -> Iterator[Task]:
        """Shards of which at least one layer is not in the store; adds the keys of all as it goes."""
        found = 0
        for shard in self.cut():
            digest = shard.digest()
            for layer in layers:
                keys[layer].append(self.context.key(layer, digest))
            missing = tuple(layer for layer in layers if not self._held(store, layer, keys[layer][-1], shard.number))
            if missing:
                yield Task(shard, missing)
            else:
                found += 1
                self.on_rows(shard.rows)
        if found:
            self.say(f"{found} of {len(keys[layers[0]])} shards were there from an earlier run that was stopped")

    def _held(self, store: ShardStore, layer: int, key: str, number: int) -> bool:
        held = store.holds(layer, key)
        if held is None:
            self.say(f"Shard {number} of layer {layer} was damaged on disk, reading it again: {store.path(layer, key)}")
        return bool(held)

    def _finished(self) -> dict[int, HarvestFile]:
        """Layers whose harvest an earlier run completed on the same text with the same settings."""
        candidates = [layer for layer in self.context.layers if (self.place.directory / harvest_path(layer)).is_file()]
        if not candidates:
            return {}
        digests = [shard.digest() for shard in self.cut()]
        keys = {layer: key_of([self.context.key(layer, digest) for digest in digests]) for layer in candidates}
        files = {layer: HarvestFile(self.place.directory / harvest_path(layer), key) for layer, key in keys.items()}
        found = {layer: file for layer, file in files.items() if file.is_sound()}
        if found:
            self.say(f"Text was read before: the harvest of layers {' '.join(map(str, found))} is used again")
        if others := [layer for layer in candidates if layer not in found]:
            differences = changed(self.result_facts or {}, self.context.facts())
            why = f"read with another {', another '.join(differences)}" if differences else "damaged"
            self.say(f"The harvest of layers {' '.join(map(str, others))} here was {why}: reading them anew")
        return found

    def _notice_changes(self) -> None:
        """Tell what a stopped run in this place read differently, and note down what this one reads."""
        path, facts = self.place.shards / CONTEXT_FILE, self.context.facts()
        before = read_sealed(path, CONTEXT_FILE) if path.is_file() else None
        differences = changed(json.loads(before), facts) if before is not None else []
        if differences:
            self.say(
                f"A run that was stopped here had another {', another '.join(differences)}: "
                "of its shards only those that nothing changed for are used"
            )
        write_sealed(path, CONTEXT_FILE, json.dumps(facts).encode())
