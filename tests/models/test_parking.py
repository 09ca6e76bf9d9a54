"""A model that waits on the host while others use its GPUs, which pretend to be there."""

import pytest
import torch
from torch import nn

from stratalens.models import parking
from stratalens.models.parking import parked_on_host

PLACES = ("cuda:0", "cuda:0", "cuda:1", "cpu")


class PretendTensor(torch.Tensor):
    """A tensor that says that it is elsewhere, and goes where it is sent."""

    place: torch.device

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.place

    @property
    def data(self) -> "PretendTensor":  # pyright: ignore[reportIncompatibleVariableOverride]
        return self

    @data.setter
    def data(self, moved: "PretendTensor") -> None:
        self.place = moved.place

    def to(self, device: torch.device) -> "PretendTensor":  # pyright: ignore[reportIncompatibleMethodOverride]
        return pretend(device, self)


def pretend(device: torch.device, values: torch.Tensor) -> PretendTensor:
    tensor = values.as_subclass(torch.Tensor).clone().as_subclass(PretendTensor)
    tensor.place = device
    return tensor


class PretendModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for number, place in enumerate(PLACES):
            self.register_buffer(f"weight_{number}", pretend(torch.device(place), torch.full((2,), number)))

    def places(self) -> tuple[str, ...]:
        return tuple(str(one.device) for one in self.buffers())


def test_each_tensor_comes_back_to_its_own_gpu_also_after_an_error(monkeypatch):
    released: list[tuple[str, ...]] = []
    model = PretendModel()
    monkeypatch.setattr(parking, "release_device_memory", lambda: released.append(model.places()))
    with parked_on_host(model):
        assert model.places() == ("cpu",) * 4
    assert model.places() == PLACES
    with pytest.raises(KeyError), parked_on_host(model):
        raise KeyError
    assert model.places() == PLACES
    assert released == [("cpu",) * 4] * 2, "what the GPU keeps of the freed memory is given back"


def test_a_model_on_the_cpu_stays_as_it_is():
    model = nn.BatchNorm1d(3)
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    with torch.inference_mode(), parked_on_host(model):
        pass
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
