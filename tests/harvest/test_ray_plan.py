"""What reading on a cluster decides, without a cluster: when models are loaded, and which devices are refused."""

from collections.abc import Callable

import pytest

from stratalens.config.validation import make_config
from stratalens.errors import ConfigError
from stratalens.harvest import ray_workers
from stratalens.harvest.ray_workers import _actor_resources, _common_kind
from stratalens.harvest.workers import WorkerKind

KIND = WorkerKind("cuda, pretended", "torch.bfloat16", ())


class PretendActor:
    """An actor that notes when its model is asked for and waited for."""

    def __init__(self, events: list[str], kind: WorkerKind = KIND):
        self.events, self.own_kind = events, kind

    @property
    def kind(self) -> "PretendActor":
        return self

    def remote(self) -> Callable[[], WorkerKind]:
        self.events.append("asked")

        def wait() -> WorkerKind:
            self.events.append("waited")
            return self.own_kind

        return wait


def test_all_actors_load_their_model_before_one_is_waited_for(monkeypatch):
    monkeypatch.setattr(ray_workers, "_get_result", lambda reference: reference())
    events: list[str] = []
    assert _common_kind([PretendActor(events) for _ in range(3)]) == KIND
    assert events == ["asked"] * 3 + ["waited"] * 3


def test_actors_on_different_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(ray_workers, "_get_result", lambda reference: reference())
    with pytest.raises(ConfigError, match="the workers differ"):
        _common_kind([PretendActor([]), PretendActor([], KIND._replace(device="cuda, another"))])


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_every_gpu_gets_an_actor(device):
    config = make_config(workers="ray", device=device)
    assert _actor_resources(config, {"GPU": 4.0, "CPU": 8.0}) == ({"num_gpus": 1}, 4)


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_one_gpu_for_all_workers_is_refused_with_what_to_give(device, documented):
    with pytest.raises(ConfigError, match=f"every worker would use {device}; give --device cuda") as error:
        make_config(workers="ray", device=device)
    make_config(device=device)
    if device == "cuda:1":
        documented("Memory and workers", "one GPU for all workers", str(error.value))
