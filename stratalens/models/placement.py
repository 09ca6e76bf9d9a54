"""Where the weights of a model go: one GPU where they fit, else several; never the host beside a GPU."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from stratalens.errors import StratalensError, counted
from stratalens.models.memory import USABLE_SHARE, free_gpu_bytes

ON_HOST = ("cpu", "disk")
"""Names of places in a device map where weights wait to be copied to a GPU in every forward pass."""


class Placement(NamedTuple):
    """Where a model runs, and in which numbers."""

    device: torch.device
    """With `cuda` and no number, a model larger than one GPU is spread over several."""
    dtype: torch.dtype
    """Type of weights and activations."""
    load_in: str | None = None
    """`8bit` or `4bit` to quantise the blocks with bitsandbytes."""
    beside_bytes: int = 0
    """Bytes that the first GPU should have free beside the weights: for SAEs and the activations of a batch."""


class WeightSizes(NamedTuple):
    """The size of a model's weights, as they will be loaded."""

    total: int
    """Bytes."""
    types: Mapping[str, Any]
    """Name of a weight -> its type, where it is not that of the model."""
    dtype: Any
    """Type of the others, of PyTorch or of accelerate."""

    @classmethod
    def of(cls, model: nn.Module, placement: Placement) -> "WeightSizes":
        """Sizes of a model without weights (on the device `meta`)."""
        from accelerate.utils import CustomDtype
        from accelerate.utils.modeling import compute_module_sizes

        dtype: Any = placement.dtype
        types: dict[str, Any] = {}
        if placement.load_in is not None:
            dtype = torch.int8 if placement.load_in == "8bit" else CustomDtype.INT4
            products = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
            types = {name: placement.dtype for name, _ in model.named_parameters() if name not in products}
        return cls(int(compute_module_sizes(model, dtype, types)[""]), types, dtype)


def current_gpu(device: torch.device) -> int:
    """Number of the GPU that a cuda device means."""
    return torch.cuda.current_device() if device.index is None else device.index


def gpus_for(device: torch.device, needed_bytes: int) -> list[int]:
    """Numbers of the GPUs that so much memory is taken from: the one of the device if it fits there, else all.

    The others are asked only then, since that takes some memory of each.
    """
    first = current_gpu(device)
    if device.index is not None or needed_bytes <= USABLE_SHARE * free_gpu_bytes(first):
        return [first]
    return [first, *(number for number in range(torch.cuda.device_count()) if number != first)]


class TooLarge(NamedTuple):
    """What is told of a model that does not fit on the GPUs."""

    name: str
    """Of the model."""
    remedy: str
    """What the user can do."""
    kind: type[StratalensError]

    def error(self, text: str) -> StratalensError:
        """The error with what was found."""
        return self.kind(f"{self.name}: {text}; {self.remedy}")


def placement_options(
    build: Callable[[], Any], config: Any, placement: Placement, too_large: TooLarge
) -> dict[str, object]:
    """Plan on which devices the parts of a model are loaded.

    Args:
        build: makes the model, which gets no weights here.
        config: its configuration. Weights that are quantised in its files have a size that only their loader knows.
        placement: where and in which numbers.
        too_large: what is told if it does not fit.

    Returns:
        Options of `from_pretrained`; without `device_map`, the whole model is moved after it was loaded.

    Raises:
        StratalensError: the weights do not fit into the free memory of the GPUs.
    """
    device = placement.device
    if device.type != "cuda":
        return {} if placement.load_in is None else {"device_map": {"": device}}
    if getattr(config, "quantization_config", None) is not None:
        if device.index is not None or torch.cuda.device_count() == 1:
            return {"device_map": {"": current_gpu(device)}}
        limits = {gpu: int(USABLE_SHARE * free_gpu_bytes(gpu)) for gpu in range(torch.cuda.device_count())}
        return {"device_map": "sequential", "max_memory": limits}
    with torch.device("meta"):
        model = build()
    return {"device_map": _device_map(model, placement, too_large)}


def _device_map(model: Any, placement: Placement, too_large: TooLarge) -> dict[str, Any]:
    """Name of a module -> number of its GPU."""
    sizes = WeightSizes.of(model, placement)
    gpus = gpus_for(placement.device, sizes.total + placement.beside_bytes)
    free = {gpu: free_gpu_bytes(gpu) for gpu in gpus}
    if len(gpus) > 1:
        for beside in (placement.beside_bytes, 0):
            if (spread := _spread(model, sizes, free, beside)) is not None:
                return spread
    if sizes.total > free[gpus[0]]:
        have = f"GPU {gpus[0]} has" if len(gpus) == 1 else f"{len(gpus)} GPUs have"
        raise too_large.error(
            f"its weights take {sizes.total / 1e9:.1f} GB, and {have} {sum(free.values()) / 1e9:.1f} GB free"
        )
    return {"": gpus[0]}


def _spread(model: Any, sizes: WeightSizes, free: Mapping[int, int], beside: int) -> dict[str, Any] | None:
    """Fill one GPU after the other, the first one less `beside` bytes; None where a part would stay on the host."""
    from accelerate import infer_auto_device_map

    first = next(iter(free))
    limits: dict[int | str, int | str] = {
        gpu: max(0, int(USABLE_SHARE * size) - (beside if gpu == first else 0)) for gpu, size in free.items()
    }
    planned = infer_auto_device_map(
        model,
        max_memory=limits,
        no_split_module_classes=list(getattr(model, "_no_split_modules", None) or ()),
        dtype=sizes.dtype,
        special_dtypes=dict(sizes.types),
    )
    return None if set(ON_HOST).intersection(map(str, planned.values())) else dict(planned)


def require_on_gpus(model: nn.Module, placement: Placement, too_large: TooLarge) -> None:
    """Check that no part of a model that was loaded for GPUs lies on the host.

    Raises:
        StratalensError: one does.
    """
    if placement.device.type != "cuda":
        return
    places = getattr(model, "hf_device_map", None) or {}
    left = [name or "all of it" for name, place in places.items() if str(place) in ON_HOST]
    if left:
        raise too_large.error(f"{counted(len(left), 'part')} of it did not fit on the GPU ({left[0]})")
