"""Reading on a Ray cluster: actors that hold the model, one a GPU, or one for so many threads of a CPU.

The driver alone reads the text and writes the shards; an actor needs model and SAEs, by the same path or Hub id.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from stratalens.config.options import RunConfig
from stratalens.config.validation import make_config
from stratalens.errors import ConfigError, ModelError, StratalensError
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.shards import Shard
from stratalens.harvest.workers import (
    FinishedShard,
    LocalWorker,
    ReadingCallbacks,
    ShardTask,
    WorkerKind,
    finished,
)
from stratalens.models import PassageCutter, find_model
from stratalens.models.hooks import cut
from stratalens.models.loading import choose_device, choose_dtype, load_blocks
from stratalens.models.source import load_tokenizer
from stratalens.saes import find_saes

TASKS_AHEAD = 2
"""Shards that each actor has in hand, so that it need not wait for the driver."""
TRIES = 4
"""Times that a shard is given out when its worker dies."""


class RayReader:
    """An actor: holds the model and reads what it is given.

    Args:
        options: of the run.
        norm_limits: layer -> norm above which a position is a sink, as the driver measured it.
        digests: of model and SAEs, as the driver found them.
    """

    def __init__(self, options: dict[str, Any], norm_limits: dict[int, float], digests: list[str]):
        self._given = options, norm_limits, digests
        self._reader: ShardReader | None = None

    @cached_property
    def _worker(self) -> LocalWorker:
        """Loads everything; not at construction, so that a complaint is an answer and not the death of an actor."""
        options, norm_limits, digests = self._given
        config = make_config(**options)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        source = find_model(config)
        saes = find_saes(config, source)
        if [source.digest, *(sae.digest for sae in saes.values())] != digests:
            raise ModelError(
                f"{source.name}: a worker finds another model or other SAEs under that name; copy the same to all nodes"
            )
        device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        deepest = max(saes)
        model = load_blocks(config, source, deepest + 1, device, dtype)
        cut(model, saes[deepest].hookpoint)
        opened = OpenModel(model, saes, norm_limits, (tuple(saes),), {}, device, dtype)
        cutter = PassageCutter(load_tokenizer(source), config.max_length, config.min_length)
        return LocalWorker(opened, cutter, config.batch_tokens, ReadingCallbacks(lambda _n: None, lambda _n: None))

    def kind(self) -> WorkerKind:
        """What last bits depend on."""
        return self._worker.kind

    def read(self, layers: tuple[int, ...], shard: Shard, wanted: tuple[int, ...]) -> FinishedShard:
        """Read one shard, with the SAEs of some layers in memory."""
        with torch.inference_mode():
            if self._reader is None or tuple(self._reader.probes) != layers:
                self._reader = None  # lets go of the SAEs of other layers first
                self._reader = self._worker.reader(layers)
            return finished(shard, self._reader.read(shard, wanted))


@dataclass(frozen=True)
class RayWorkers:
    """Actors on a cluster. One that dies is started again and its shards are read again."""

    actors: list[Any]
    kind: WorkerKind
    callbacks: ReadingCallbacks

    def read(self, layers: tuple[int, ...], tasks: Iterable[ShardTask]) -> Iterator[FinishedShard]:
        """See `Workers`."""
        import ray

        waiting: dict[Any, Any] = {}
        free = [actor for _ in range(TASKS_AHEAD) for actor in self.actors]
        for task in tasks:
            actor = free.pop(0)
            waiting[actor.read.remote(layers, task.shard, task.layers)] = actor
            if not free:
                done, _ = ray.wait(list(waiting), num_returns=1)
                free.append(waiting.pop(done[0]))
                yield self._taken(done[0])
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            del waiting[done[0]]
            yield self._taken(done[0])

    def _taken(self, reference: Any) -> FinishedShard:
        done = _get(reference)
        self.callbacks.on_tokens(done.tokens)
        self.callbacks.on_rows(done.rows)
        return done


@contextmanager
def ray_workers(
    config: RunConfig, inputs: RunInputs, norm_limits: Mapping[int, float], callbacks: ReadingCallbacks
) -> Iterator[RayWorkers]:
    """Actors on the cluster that `ray.init(address="auto")` finds, as many as it has room for.

    Raises:
        ConfigError: Ray is not installed, there is no cluster, or its workers differ from each other.
    """
    ray = _connected()
    actors: list[Any] = []
    try:
        needs, count = _room(config, ray.cluster_resources())
        actor = ray.remote(RayReader).options(**needs, max_restarts=-1, max_task_retries=TRIES - 1)
        digests = [inputs.source.digest, *(sae.digest for sae in inputs.saes.values())]
        options = config.model_dump(mode="json") | {"threads": config.threads or torch.get_num_threads()}
        actors += [actor.remote(options, dict(norm_limits), digests) for _ in range(count)]
        kinds = {_get(one.kind.remote()) for one in actors}
        if len(kinds) > 1:
            raise ConfigError(f"--workers ray: workers differ, so their shards would not agree: {kinds}")
        yield RayWorkers(actors, kinds.pop(), callbacks)
    finally:
        for one in actors:
            ray.kill(one)
        ray.shutdown()


def _connected() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("--workers ray needs the package ray: pip install 'stratalens[ray]'") from None
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
    except (ConnectionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--workers ray: no Ray cluster was found ({reason}); start one with `ray start --head`, or set RAY_ADDRESS"
        ) from None
    return ray


def _room(config: RunConfig, resources: Mapping[str, float]) -> tuple[dict[str, int], int]:
    """What one actor needs, and how many of them the cluster has room for."""
    gpus = int(resources.get("GPU", 0))
    if gpus and config.device in ("auto", "cuda"):
        return {"num_gpus": 1}, gpus
    threads = config.threads or torch.get_num_threads()
    count = int(resources.get("CPU", 0) // threads)
    if count == 0:
        raise ConfigError(
            f"--workers ray: a worker takes {threads} CPUs, the cluster has {resources.get('CPU', 0):g}; "
            "give fewer --threads"
        )
    return {"num_cpus": threads}, count


def _get(reference: Any) -> Any:
    """The value behind a reference; an actor's own complaint comes out as if it had been raised here."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, StratalensError):
            raise error.cause from None
        raise
    except RayActorError as error:
        raise ConfigError(
            f"--workers ray: a worker died {TRIES} times over the same shard, perhaps for lack of memory; see the "
            f"cluster's log, or lower --batch_tokens ({' '.join(str(error).split())[:200]})"
        ) from None
