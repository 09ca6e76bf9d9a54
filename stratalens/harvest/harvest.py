"""Read all of the text, shard by shard: states of an earlier run are reused from disk, workers read the rest.

The state of a layer after a shard is stored under a key, a hash of everything it depends on, so that states of
different runs are never mixed.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from stratalens.config.options import RunConfig
from stratalens.errors import counted
from stratalens.files.atomic import read_checksummed, write_checksummed
from stratalens.files.output_dir import WorkDirectories
from stratalens.files.own_folders import remove_folder
from stratalens.files.record import read_record
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.shard_reader import CHUNK_TOKENS
from stratalens.harvest.shards import Shard, cut_shards, shard_characters
from stratalens.harvest.store import HarvestFile, ShardStore, harvest_path, key_of
from stratalens.harvest.workers import HarvestCallbacks, LocalWorker, ShardTask, WorkerKind, Workers
from stratalens.hookpoint import Hookpoint
from stratalens.progress import Progress

CONTEXT_FILE = "context.json"
Facts = Mapping[str, object]
"""What a harvest depends on, under names shown to the user; values that JSON can represent."""


@dataclass(frozen=True)
class HarvestContext:
    """Everything besides the text that the state of a layer after a shard depends on, as values for JSON."""

    shared: Facts
    """Shared by all layers: model, settings, library versions, kind of device."""
    layers: Mapping[Hookpoint, Facts]
    """Hookpoint -> its SAE, hookpoint and norm limit."""
    text: str
    """Digest of the whole text, only to report that it changed: keys use the digest of each shard instead."""

    def key(self, hookpoint: Hookpoint, shard_digest: str) -> str:
        """Key under which the state of one layer after one shard is stored."""
        return key_of(self.shared, self.layers[hookpoint], shard_digest)

    def facts(self) -> dict[str, object]:
        """Everything that can differ between two runs, by name."""
        saes = {f"SAE of layer {hookpoint}": key_of(own) for hookpoint, own in self.layers.items()}
        return {**self.shared, **saes, "text": self.text}


def harvest_context(
    config: RunConfig, inputs: RunInputs, norm_limits: Mapping[Hookpoint, float], kind: WorkerKind
) -> HarvestContext:
    """Build the context of a run whose workers are all of one kind."""
    return HarvestContext(
        shared={
            "model": inputs.source.digest,
            "--dtype": kind.dtype,
            "--load_in": config.load_in,
            "--max_length": config.max_length,
            "--min_length": config.min_length,
            "--batch_tokens": config.batch_tokens,
            "chunk size": CHUNK_TOKENS,
            "device": kind.device,
            **({"kinds of text": list(strata)} if len(strata := inputs.survey.populations.strata) > 1 else {}),
            **{f"version of {name}": number for name, number in kind.libraries},
        },
        layers={
            hookpoint: {
                "sae": sae.digest,
                "hookpoint": sae.module,
                "encoder": [sae.activation, sae.k, sae.num_latents, sae.hookpoint != sae.target],
                "norm_limit": norm_limits[hookpoint].hex(),
            }
            for hookpoint, sae in inputs.saes.items()
        },
        text=f"{inputs.survey.digest:016x}",
    )


def changed_facts(before: Facts, now: Facts) -> list[str]:
    """Names of the facts whose values differ; a fact that only one side has, such as a new layer, does not count."""
    return [name for name, value in now.items() if name in before and before[name] != value]


@dataclass(frozen=True)
class Harvest:
    """The harvest of a run, and the work it took."""

    files: Mapping[Hookpoint, HarvestFile]
    """Hookpoint -> its harvest on disk."""
    facts: Facts
    """Model, SAEs, settings and text of the harvest, see `HarvestContext.facts`."""
    tokens_read: int
    """Tokens that this run read itself, without those reused from earlier runs."""
    seconds: float
    """Wall-clock time of reading and merging."""


def read_corpus(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, work: WorkDirectories, progress: Progress
) -> Harvest:
    """Read the text that no earlier run has read, and store the harvest of each layer in the staging directory.

    Args:
        config: options of the run.
        inputs: its model source, SAEs and text.
        opened: the loaded model, and which layers are read together.
        work: directories of the run, which may hold states of an earlier one.
        progress: receives messages and counts of rows and tokens.

    Raises:
        CapacityError: there is not enough memory for a single passage.
        OutputError: a stored state was removed or damaged during the run.
    """
    characters = shard_characters(inputs.survey.characters)
    started = time.perf_counter()
    tokens_read = 0
    progress.stage("harvest")
    with progress.track("Reading text", inputs.survey.kept_rows * len(opened.passes)) as advance:

        def on_tokens(tokens: int) -> None:
            nonlocal tokens_read
            tokens_read += tokens
            advance(0, tokens)

        callbacks = HarvestCallbacks(on_tokens, on_rows=lambda rows: advance(rows, 0))
        with _open_workers(config, inputs, opened, callbacks) as workers:
            context = harvest_context(config, inputs, opened.norm_limits, workers.kind)
            reader = CorpusReader(
                context,
                cut=lambda: cut_shards(inputs.survey.select(inputs.corpus), characters, len(inputs.survey.populations)),
                work=work,
                refresh=config.harvest == "refresh",
                say=progress.say,
                on_rows=callbacks.on_rows,
            )
            files = reader.harvest(workers, opened.passes)
    seconds = time.perf_counter() - started
    if tokens_read:
        progress.say(f"Read {tokens_read:,} tokens in {seconds:.0f} s, {tokens_read / seconds:,.0f} tokens/s")
    return Harvest(files, context.facts(), tokens_read, seconds)


def _open_workers(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, callbacks: HarvestCallbacks
) -> AbstractContextManager[Workers]:
    if config.workers == "ray":
        from stratalens.harvest.ray_workers import ray_workers

        return ray_workers(config, inputs, opened.norm_limits, callbacks)
    return nullcontext(LocalWorker(opened, inputs.cutter, config.batch_tokens, callbacks))


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

    def harvest(self, workers: Workers, passes: Iterable[tuple[Hookpoint, ...]]) -> dict[Hookpoint, HarvestFile]:
        """Read the missing shards, and merge the shards of each layer.

        Args:
            workers: read the shards.
            passes: groups of layers; the text is read once for each group.

        Returns:
            Hookpoint -> its harvest, in the order of the context.

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
            for hookpoint, keys in (self._read(store, missing, workers) if missing else {}).items():
                ready[hookpoint] = HarvestFile(self.work.staging / self.place(hookpoint), key_of(keys))
                ready[hookpoint].write(store.fold(hookpoint, keys))
        return {hookpoint: ready[hookpoint] for hookpoint in self.context.layers}

    def _read(
        self, store: ShardStore, hookpoints: tuple[Hookpoint, ...], workers: Workers
    ) -> dict[Hookpoint, list[str]]:
        """Read the missing shards of some layers into the store; return the keys of all shards of each."""
        keys: dict[Hookpoint, list[str]] = {hookpoint: [] for hookpoint in hookpoints}
        for shard in workers.read(hookpoints, self._missing_tasks(store, hookpoints, keys)):
            for hookpoint, packed in shard.packed.items():
                store.write(hookpoint, keys[hookpoint][shard.number], packed)
        return keys

    def _missing_tasks(
        self, store: ShardStore, hookpoints: tuple[Hookpoint, ...], keys: dict[Hookpoint, list[str]]
    ) -> Iterator[ShardTask]:
        """Yield the shards of which a layer is not in the store; append the key of every shard to `keys`."""
        reused = 0
        for shard in self.cut():
            digest = shard.digest()
            for hookpoint in hookpoints:
                keys[hookpoint].append(self.context.key(hookpoint, digest))
            missing = tuple(
                hookpoint
                for hookpoint in hookpoints
                if not self._is_stored(store, hookpoint, keys[hookpoint][-1], shard.number)
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
