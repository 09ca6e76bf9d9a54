"""Read a corpus shard by shard: what earlier runs stored is reused from disk, workers read the rest."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from stratalens.errors import counted
from stratalens.files.atomic import read_checksummed, write_checksummed
from stratalens.files.output_dir import WorkDirectories
from stratalens.files.own_folders import remove_folder
from stratalens.files.record import read_record
from stratalens.harvest.context import Facts, HarvestContext, changed_facts
from stratalens.harvest.keep_plan import KEEP_NOTHING, KeepPlan
from stratalens.harvest.kept_codes import KeptLayer, belongs_to, codes_path
from stratalens.harvest.shards import Shard, ShardTask
from stratalens.harvest.store import HarvestFile, ShardStore, harvest_path, key_of
from stratalens.harvest.workers import Workers
from stratalens.hookpoint import Hookpoint
from stratalens.models.memory import release_free_memory

CONTEXT_FILE = "context.json"


class ShardKeys(NamedTuple):
    """Keys under which what was read of a shard for one layer is stored."""

    state: str
    codes: str | None
    """None where nothing of the shard is kept with its codes."""

    @classmethod
    def of(cls, state: str, shard: Shard) -> "ShardKeys":
        """The keys of a shard whose state has this one."""
        return cls(state, key_of("codes", state, shard.kept) if shard.kept else None)


class ReadText(NamedTuple):
    """What was read of a corpus, on disk."""

    files: dict[Hookpoint, HarvestFile]
    """Hookpoint -> its harvest, in the order of the context."""
    codes: dict[Hookpoint, Path]
    """Hookpoint -> its codes, where some are kept."""


@dataclass(frozen=True)
class CorpusReader:
    """Reads the shards that no earlier run in the same output directory has read."""

    context: HarvestContext
    cut: Callable[[], Iterable[Shard]]
    """Cuts the text into shards; every call yields the same ones."""
    work: WorkDirectories
    """May hold the shards of a run that was stopped, and the result of a finished one."""
    refresh: bool
    """Whether to ignore and replace what earlier runs stored."""
    say: Callable[[str], None]
    """Called with messages for the user."""
    on_rows: Callable[[int], None]
    """Called with the number of corpus rows of each shard that is reused."""
    place: Callable[[Hookpoint], Path] = harvest_path
    """Path of the harvest of a layer, relative to the result directory."""
    recorded: Facts | None = None
    """Facts of what lies there; None for those of the harvest of the result."""
    context_file: str = CONTEXT_FILE
    """Name of the file of the facts of a run that was stopped."""
    plan: KeepPlan = KEEP_NOTHING
    """Which passages are kept with their codes."""

    def harvest(self, workers: Workers, passes: Iterable[tuple[Hookpoint, ...]]) -> ReadText:
        """Read the missing shards, and merge the shards of each layer.

        Args:
            workers: read the shards.
            passes: groups of layers; the text is read once for each group.

        Raises:
            OutputError: a stored shard was removed or damaged before it was merged.
        """
        if self.refresh:
            remove_folder(self.work.shards)
        self._report_changes()
        ready = {} if self.refresh else self._finished_layers()
        store = ShardStore(self.work.shards)
        for hookpoints in passes:
            missing = tuple(hookpoint for hookpoint in hookpoints if hookpoint not in ready)
            if missing:
                ready |= self._fold_all(store, self._read(store, missing, workers))
        files = {hookpoint: ready[hookpoint] for hookpoint in self.context.layers}
        return ReadText(files, self._codes(files))

    def _fold_all(self, store: ShardStore, keys: Mapping[Hookpoint, list[ShardKeys]]) -> dict[Hookpoint, HarvestFile]:
        """Merge the shards of the layers that were read together, each core those of one layer.

        They were in memory together while they were read.
        """
        with ThreadPoolExecutor(min(len(keys), torch.get_num_threads()), "fold") as pool:
            return dict(zip(keys, pool.map(partial(self._fold, store), keys, keys.values()), strict=True))

    def _fold(self, store: ShardStore, hookpoint: Hookpoint, keys: list[ShardKeys]) -> HarvestFile:
        """Merge the shards of a layer, and the codes that are kept of it."""
        file = HarvestFile(self.work.staging / self.place(hookpoint), key_of([own.state for own in keys]))
        state = store.fold(hookpoint, [own.state for own in keys])
        file.write(state)
        examples = state.examples
        del state  # its sampled documents are large
        coded = [own.codes for own in keys if own.codes is not None]
        if coded:
            kept = KeptLayer(store, hookpoint, coded, self.plan)
            kept.write(self.work.staging / codes_path(hookpoint), file.key, examples)
        release_free_memory()
        return file

    def _codes(self, files: Mapping[Hookpoint, HarvestFile]) -> dict[Hookpoint, Path]:
        """Hookpoint -> the file of the codes that are kept of it, where there is one that belongs to its harvest."""
        if not self.plan.documents and not self.plan.candidates:
            return {}
        paths = {
            hookpoint: folder / codes_path(hookpoint)
            for hookpoint, file in files.items()
            for folder in (self.work.result, self.work.staging)
            if file.path == folder / self.place(hookpoint)
        }
        return {hookpoint: path for hookpoint, path in paths.items() if belongs_to(path, files[hookpoint].key)}

    def _read(
        self, store: ShardStore, hookpoints: tuple[Hookpoint, ...], workers: Workers
    ) -> dict[Hookpoint, list[ShardKeys]]:
        """Read the missing shards of some layers into the store; return the keys of all shards of each."""
        keys: dict[Hookpoint, list[ShardKeys]] = {hookpoint: [] for hookpoint in hookpoints}
        for shard in workers.read(hookpoints, self._missing_tasks(store, hookpoints, keys)):
            for hookpoint, packed in shard.packed.items():
                own = keys[hookpoint][shard.number]
                if own.codes is not None:
                    store.write(hookpoint, own.codes, shard.codes[hookpoint])
                store.write(hookpoint, own.state, packed)
        return keys

    def _missing_tasks(
        self, store: ShardStore, hookpoints: tuple[Hookpoint, ...], keys: dict[Hookpoint, list[ShardKeys]]
    ) -> Iterator[ShardTask]:
        """Yield the shards of which a layer is not in the store; append the key of every shard to `keys`."""
        reused = 0
        for shard in self.cut():
            digest = shard.digest()
            for hookpoint in hookpoints:
                keys[hookpoint].append(ShardKeys.of(self.context.key(hookpoint, digest), shard))
            missing = tuple(
                hookpoint
                for hookpoint in hookpoints
                if not all([self._is_stored(store, hookpoint, key, shard.number) for key in keys[hookpoint][-1] if key])
            )
            if missing:
                yield ShardTask(shard, missing)
            else:
                reused += 1
                self.on_rows(shard.rows)
        if reused:
            self.say(
                f"Reusing {reused} of {counted(len(keys[hookpoints[0]]), 'shard')} from an earlier run that was stopped"
            )

    def _is_stored(self, store: ShardStore, hookpoint: Hookpoint, key: str, number: int) -> bool:
        stored = store.holds(hookpoint, key)
        if stored is None:
            self.say(
                f"Shard {number} of layer {hookpoint} was damaged on disk, reading it again: "
                f"{store.path(hookpoint, key)}"
            )
        return bool(stored)

    def _finished_layers(self) -> dict[Hookpoint, HarvestFile]:
        """Layers whose harvest an earlier run completed on the same text with the same settings."""
        candidates = [
            hookpoint for hookpoint in self.context.layers if (self.work.result / self.place(hookpoint)).is_file()
        ]
        if not candidates:
            return {}
        digests = [shard.digest() for shard in self.cut()]
        keys = {
            hookpoint: key_of([self.context.key(hookpoint, digest) for digest in digests]) for hookpoint in candidates
        }
        files = {
            hookpoint: HarvestFile(self.work.result / self.place(hookpoint), key) for hookpoint, key in keys.items()
        }
        reusable = {hookpoint: file for hookpoint, file in files.items() if file.is_intact()}
        if reusable:
            self.say(f"The text was read before: reusing the harvest of layers {' '.join(map(str, reusable))}")
        if others := [hookpoint for hookpoint in candidates if hookpoint not in reusable]:
            differences = changed_facts(self._recorded_facts(), self.context.facts())
            reason = f"was read with another {', another '.join(differences)}" if differences else "is damaged"
            self.say(f"The harvest of layers {' '.join(map(str, others))} in this directory {reason}; reading it again")
        return reusable

    def _recorded_facts(self) -> Facts:
        """Facts of the finished result; empty where there is none, or one of an older version."""
        if self.recorded is not None:
            return self.recorded
        harvest = read_record(self.work.result).get("harvest")
        facts = harvest.get("facts") if isinstance(harvest, dict) else None
        return facts if isinstance(facts, dict) else {}

    def _report_changes(self) -> None:
        """Report what differs from a run that was stopped in this directory, and record the facts of this run."""
        path, facts = self.work.shards / self.context_file, self.context.facts()
        if differences := changed_facts(_stored_facts(path), facts):
            self.say(
                f"A run that was stopped in this directory had another {', another '.join(differences)}; "
                "only its shards that are not affected are reused"
            )
        write_checksummed(path, self.context_file, json.dumps(facts).encode(), private=True)


def _stored_facts(path: Path) -> Facts:
    """Facts of a run that was stopped; empty where there are none, or where they are damaged."""
    try:
        before = json.loads((read_checksummed(path, path.name) if path.is_file() else None) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return before if isinstance(before, dict) else {}
