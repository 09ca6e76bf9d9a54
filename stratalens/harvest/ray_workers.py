"""Reading on a Ray cluster with actors that each hold the model: one per GPU, or one per group of CPU threads.

Only the driver reads the text and writes the states of the shards. An actor needs the model and the SAEs, under the
same path or Hub id as the driver.
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
from stratalens.harvest.inputs import RunInputs, passage_cutter
from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.shards import Shard, ShardTask
from stratalens.harvest.workers import (
    FinishedShard,
    HarvestCallbacks,
    LocalWorker,
    WorkerKind,
    packed,
)
from stratalens.hookpoint import Hookpoint
from stratalens.models import find_model
from stratalens.models.hooks import drop_blocks_above
from stratalens.models.loading import choose_device, choose_dtype, load_blocks
from stratalens.models.parking import parked_on_host
from stratalens.models.placement import Placement
from stratalens.saes import find_saes

TASKS_PER_ACTOR = 2
"""Shards submitted to each actor at a time, so that it does not wait for the driver."""
MAX_SHARD_ATTEMPTS = 4
"""How often a shard is read when its worker dies, before the run fails."""


class RayReader:
    """A Ray actor that holds the model and reads shards.

    Args:
        options: options of the run.
        norm_limits: hookpoint -> norm above which a position is a sink, as measured by the driver.
        digests: digest of the driver's model, then of each of its SAEs.
    """

    def __init__(self, options: dict[str, Any], norm_limits: dict[Hookpoint, float], digests: list[str]):
        self._arguments = options, norm_limits, digests
        self._reader: ShardReader | None = None

    @cached_property
    def _worker(self) -> LocalWorker:
        """Model and SAEs, loaded at first use: an error in the constructor would end the actor and lose its message."""
        options, norm_limits, digests = self._arguments
        config = make_config(**options)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        source = find_model(config)
        saes = find_saes(config, source, list(norm_limits))
        if [source.digest, *(sae.digest for sae in saes.values())] != digests:
            raise ModelError(
                f"{source.name}: a worker found a different model or different SAEs under this name; "
                "copy the same files to all nodes"
            )
        device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        deepest = max(saes).block
        model = load_blocks(source, deepest + 1, Placement(device, dtype, config.load_in))
        drop_blocks_above(model, deepest)
        opened = OpenModel(model, saes, norm_limits, (tuple(saes),), {}, device, dtype)
        cutter = passage_cutter(config, source)
        return LocalWorker(opened, cutter, config.tokens_per_batch, HarvestCallbacks(lambda _n: None, lambda _n: None))

    def kind(self) -> WorkerKind:
        """Device, dtype and library versions of this actor."""
        return self._worker.kind

    def read(self, hookpoints: tuple[Hookpoint, ...], shard: Shard, wanted: tuple[Hookpoint, ...]) -> FinishedShard:
        """Read one shard.

        Args:
            layers: layers whose SAEs are kept in memory from call to call.
            shard: what to read.
            wanted: those of the layers to read now.
        """
        with torch.inference_mode():
            if self._reader is None or tuple(self._reader.probes) != hookpoints:
                self._reader = None  # free the SAEs of other layers before loading
                self._reader = self._worker.reader(hookpoints)
            return packed(next(self._reader.read([ShardTask(shard, wanted)])))


@dataclass(frozen=True)
class RayWorkers:
    """Workers that are actors on a cluster. One that dies is restarted and its shards are read again."""

    actors: list[Any]
    kind: WorkerKind
    callbacks: HarvestCallbacks

    def read(self, hookpoints: tuple[Hookpoint, ...], tasks: Iterable[ShardTask]) -> Iterator[FinishedShard]:
        """See `Workers`."""
        import ray

        running: dict[Any, Any] = {}
        free = [actor for _ in range(TASKS_PER_ACTOR) for actor in self.actors]
        for task in tasks:
            actor = free.pop(0)
            running[actor.read.remote(hookpoints, task.shard, task.layers)] = actor
            if not free:
                done, _ = ray.wait(list(running), num_returns=1)
                free.append(running.pop(done[0]))
                yield self._receive(done[0])
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            del running[done[0]]
            yield self._receive(done[0])

    def _receive(self, reference: Any) -> FinishedShard:
        shard = _get_result(reference)
        self.callbacks.on_tokens(shard.tokens)
        self.callbacks.on_rows(shard.rows)
        return shard


@contextmanager
def ray_workers(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, callbacks: HarvestCallbacks
) -> Iterator[RayWorkers]:
    """Start as many actors as fit on the cluster that `ray.init(address="auto")` finds; stop them at the end.

    They load their models at the same time. The driver's own waits on the host meanwhile, because an actor may work on
    the same GPU.

    Args:
        config: options of the run.
        inputs: its model source and SAEs, which every actor must find too.
        opened: the driver's model, and the norms above which a position is a sink.
        callbacks: called as shards are finished.

    Raises:
        ConfigError: Ray is not installed, there is no cluster, it has too few CPUs, or its workers differ.
        ModelError: an actor finds a different model or different SAEs.
    """
    ray = _connect()
    actors: list[Any] = []
    with parked_on_host(opened.model):
        try:
            actors += _start_actors(config, inputs, opened.norm_limits)
            yield RayWorkers(actors, _common_kind(actors), callbacks)
        finally:
            for actor in actors:
                ray.kill(actor)
            ray.shutdown()


def _start_actors(config: RunConfig, inputs: RunInputs, norm_limits: Mapping[Hookpoint, float]) -> list[Any]:
    import ray

    needs, count = _actor_resources(config, ray.cluster_resources())
    reader = ray.remote(RayReader).options(**needs, max_restarts=-1, max_task_retries=MAX_SHARD_ATTEMPTS - 1)
    digests = [inputs.source.digest, *(sae.digest for sae in inputs.saes.values())]
    options = config.model_dump(mode="json") | {"threads": config.threads or torch.get_num_threads()}
    return [reader.remote(options, dict(norm_limits), digests) for _ in range(count)]


def _common_kind(actors: list[Any]) -> WorkerKind:
    """Let all actors load their model, at the same time; return the kind that they have in common.

    Raises:
        StratalensError: they have none, or one cannot load its model.
    """
    loading = [actor.kind.remote() for actor in actors]
    kinds, problems = set[WorkerKind](), list[StratalensError]()
    for reference in loading:  # all of them: Ray tells on the terminal of an actor that is ended while it loads
        try:
            kinds.add(_get_result(reference))
        except StratalensError as problem:
            problems.append(problem)
    if problems:
        raise problems[0]
    if len(kinds) > 1:
        raise ConfigError(
            f"--workers ray: the workers differ, so their results would differ too; use equal machines: {kinds}"
        )
    return kinds.pop()


def _connect() -> Any:
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


def _actor_resources(config: RunConfig, resources: Mapping[str, float]) -> tuple[dict[str, int], int]:
    """Resources that one actor needs, and how many actors fit on the cluster."""
    gpus = int(resources.get("GPU", 0))
    if gpus and config.device in ("auto", "cuda"):
        return {"num_gpus": 1}, gpus
    threads = config.threads or torch.get_num_threads()
    count = int(resources.get("CPU", 0) // threads)
    if count == 0:
        raise ConfigError(
            f"--workers ray: a worker needs {threads} CPUs, the cluster has {resources.get('CPU', 0):g}; "
            "use fewer --threads"
        )
    return {"num_cpus": threads}, count


def _get_result(reference: Any) -> Any:
    """Wait for the value of a reference; raise an actor's `StratalensError` as if it had been raised here."""
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
            f"--workers ray: a worker died {MAX_SHARD_ATTEMPTS} times on the same shard, perhaps out of memory; see "
            f"the cluster's log, or lower --batch_tokens ({' '.join(str(error).split())[:200]})"
        ) from None
