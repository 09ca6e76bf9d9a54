"""Read all of the text, shard by shard: what an earlier run has read is taken from disk, the rest goes to the workers.

The state of a layer after a shard is stored under a name that follows from everything it depends on, so that runs that
differ are never mixed.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from stratalens.config.options import RunConfig
from stratalens.files.atomic import read_checksummed, write_checksummed
from stratalens.files.output_dir import RECORD_FILE, WorkDirectories
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.shard_reader import CHUNK_TOKENS
from stratalens.harvest.shards import Shard, cut_shards, shard_characters
from stratalens.harvest.store import (
    HarvestFile,
    ShardStore,
    harvest_path,
    key_of,
)
from stratalens.harvest.workers import (
    LocalWorker,
    ReadingCallbacks,
    ShardTask,
    WorkerKind,
    Workers,
)
from stratalens.progress import Progress

CONTEXT_FILE = "context.json"
Facts = Mapping[str, object]
"""What a reading depends on, by names that a person knows, as JSON can hold it."""


@dataclass(frozen=True)
class HarvestContext:
    """Everything besides the text itself that the state of a layer after a shard depends on, as JSON can hold it."""

    shared: Facts
    """Of all layers: model, settings, libraries, kind of device."""
    layers: Mapping[int, Facts]
    """Layer -> its SAE, hookpoint and norm limit."""
    text: str
    """Digest of the text. Keys depend on what each shard holds; this tells a person what changed."""

    def key(self, layer: int, shard_digest: str) -> str:
        """Name of the state of one layer after one shard."""
        return key_of(self.shared, self.layers[layer], shard_digest)

    def facts(self) -> dict[str, object]:
        """What can change between two runs."""
        saes = {f"SAE of layer {layer}": key_of(own) for layer, own in self.layers.items()}
        return {**self.shared, **saes, "text": self.text}


def harvest_context(
    config: RunConfig, inputs: RunInputs, norm_limits: Mapping[int, float], kind: WorkerKind
) -> HarvestContext:
    """The context of a run whose shards are read by workers of one kind."""
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
            **{f"version of {name}": number for name, number in kind.libraries},
        },
        layers={
            layer: {
                "sae": sae.digest,
                "hookpoint": sae.hookpoint,
                "encoder": [sae.activation, sae.k, sae.num_latents, sae.reads_input],
                "norm_limit": norm_limits[layer].hex(),
            }
            for layer, sae in inputs.saes.items()
        },
        text=f"{inputs.survey.digest:016x}",
    )


def changed(before: Facts, now: Facts) -> list[str]:
    """Names of what differs; what only one of them has, such as a further layer, is no difference."""
    return [name for name, value in now.items() if name in before and before[name] != value]


@dataclass(frozen=True)
class Harvest:
    """The harvest of a run, and what it took."""

    files: Mapping[int, HarvestFile]
    facts: Facts
    """What the text was read with."""
    tokens_read: int
    """Tokens that this run read itself; an earlier one had read the others."""
    seconds: float


def read_corpus(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, work: WorkDirectories, progress: Progress
) -> Harvest:
    """Read all text once, as far as no earlier run has, and store the harvest of each layer.

    Raises:
        CapacityError: memory does not suffice for a single passage.
        OutputError: a stored state was removed or damaged while the run went on.
    """
    characters = shard_characters(inputs.survey.characters)
    started = time.perf_counter()
    read = 0
    progress.stage("harvest")
    with progress.track("Reading text", inputs.survey.kept_rows * len(opened.passes)) as advance:

        def on_tokens(tokens: int) -> None:
            nonlocal read
            read += tokens
            advance(0, tokens)

        callbacks = ReadingCallbacks(on_tokens, on_rows=lambda rows: advance(rows, 0))
        with _open_workers(config, inputs, opened, callbacks) as workers:
            context = harvest_context(config, inputs, opened.norm_limits, workers.kind)
            reader = CorpusReader(
                context,
                cut=lambda: cut_shards(inputs.survey.select(inputs.corpus), characters),
                work=work,
                refresh=config.harvest == "refresh",
                say=progress.say,
                on_rows=callbacks.on_rows,
            )
            files = reader.harvest(workers, opened.passes)
    seconds = time.perf_counter() - started
    if read:
        progress.say(f"Read {read:,} tokens in {seconds:.0f} s, {read / seconds:,.0f} tokens/s")
    return Harvest(files, context.facts(), read, seconds)


def _open_workers(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, callbacks: ReadingCallbacks
) -> AbstractContextManager[Workers]:
    if config.workers == "ray":
        from stratalens.harvest.ray_workers import ray_workers

        return ray_workers(config, inputs, opened.norm_limits, callbacks)
    return nullcontext(LocalWorker(opened, inputs.cutter, config.batch_tokens, callbacks))


@dataclass(frozen=True)
class CorpusReader:
    """Reads what no earlier run in the same output directory has read."""

    context: HarvestContext
    cut: Callable[[], Iterable[Shard]]
    """Cuts the text into its shards, the same ones at every call."""
    work: WorkDirectories
    """May hold shards of a run that was stopped, and the harvest of a finished one."""
    refresh: bool
    """Whether to ignore and replace what is there."""
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
            shutil.rmtree(self.work.shards, ignore_errors=True)
        self._tell_changes()
        ready = {} if self.refresh else self._finished()
        store = ShardStore(self.work.shards)
        for layers in passes:
            wanted = tuple(layer for layer in layers if layer not in ready)
            for layer, keys in (self._read(store, wanted, workers) if wanted else {}).items():
                ready[layer] = HarvestFile(self.work.staging / harvest_path(layer), key_of(keys))
                ready[layer].write(store.fold(layer, keys))
        return {layer: ready[layer] for layer in self.context.layers}

    def _read(self, store: ShardStore, layers: tuple[int, ...], workers: Workers) -> dict[int, list[str]]:
        """Layer -> keys of its shards in order, all of which are in the store afterwards."""
        keys: dict[int, list[str]] = {layer: [] for layer in layers}
        for done in workers.read(layers, self._missing(store, layers, keys)):
            for layer, packed in done.packed.items():
                store.write(layer, keys[layer][done.number], packed)
        return keys

    def _missing(self, store: ShardStore, layers: tuple[int, ...], keys: dict[int, list[str]]) -> Iterator[ShardTask]:
        """Shards of which at least one layer is not in the store; adds the keys of all as it goes."""
        found = 0
        for shard in self.cut():
            digest = shard.digest()
            for layer in layers:
                keys[layer].append(self.context.key(layer, digest))
            missing = tuple(layer for layer in layers if not self._holds(store, layer, keys[layer][-1], shard.number))
            if missing:
                yield ShardTask(shard, missing)
            else:
                found += 1
                self.on_rows(shard.rows)
        if found:
            self.say(f"{found} of {len(keys[layers[0]])} shards were there from an earlier run that was stopped")

    def _holds(self, store: ShardStore, layer: int, key: str, number: int) -> bool:
        held = store.holds(layer, key)
        if held is None:
            self.say(f"Shard {number} of layer {layer} was damaged on disk, reading it again: {store.path(layer, key)}")
        return bool(held)

    def _finished(self) -> dict[int, HarvestFile]:
        """Layers whose harvest an earlier run completed on the same text with the same settings."""
        candidates = [layer for layer in self.context.layers if (self.work.result / harvest_path(layer)).is_file()]
        if not candidates:
            return {}
        digests = [shard.digest() for shard in self.cut()]
        keys = {layer: key_of([self.context.key(layer, digest) for digest in digests]) for layer in candidates}
        files = {layer: HarvestFile(self.work.result / harvest_path(layer), key) for layer, key in keys.items()}
        found = {layer: file for layer, file in files.items() if file.is_sound()}
        if found:
            self.say(f"Text was read before: the harvest of layers {' '.join(map(str, found))} is used again")
        if others := [layer for layer in candidates if layer not in found]:
            differences = changed(self._recorded_facts(), self.context.facts())
            why = f"read with another {', another '.join(differences)}" if differences else "damaged"
            self.say(f"The harvest of layers {' '.join(map(str, others))} here was {why}: reading them anew")
        return found

    def _recorded_facts(self) -> Facts:
        """What the finished result was read with; empty where there is none, or one of an older version."""
        try:
            return json.loads((self.work.result / RECORD_FILE).read_text(encoding="utf-8"))["harvest"]["facts"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _tell_changes(self) -> None:
        """Tell what a stopped run in this directory read differently, and record what this one reads."""
        path, facts = self.work.shards / CONTEXT_FILE, self.context.facts()
        before = read_checksummed(path, CONTEXT_FILE) if path.is_file() else None
        differences = changed(json.loads(before), facts) if before is not None else []
        if differences:
            self.say(
                f"A run that was stopped here had another {', another '.join(differences)}: "
                "of its shards only those that nothing changed for are used"
            )
        write_checksummed(path, CONTEXT_FILE, json.dumps(facts).encode())
