"""The base model: loaded only as deep as needed, without its head; and hooks that hand block outputs on."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratalens.errors import ModelError

Consumer = Callable[[Float[Tensor, "batch seq d_model"], Float[Tensor, "batch seq d_model"]], None]
"""Takes a module's input and output during the forward pass."""


def choose_device(name: str = "auto") -> torch.device:
    """Resolve `auto` to cuda, mps or cpu, in this order.

    Raises:
        ModelError: the device named is not there.
    """
    if name != "auto":
        device = torch.device(name)
        there = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
        if not there[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
            raise ModelError(f"device: {name} is not there; use --device auto")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve `auto`: bfloat16 where the hardware multiplies it natively, else float16 on cuda and float32 on cpu."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars and the load report: weights of the layers that were cut off are missing on purpose."""
    from transformers.utils import logging as messages

    level, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bars:
            messages.enable_progress_bar()


def load_model(
    source: str | Path,
    *,
    blocks: int | None,
    device: torch.device,
    dtype: torch.dtype,
    revision: str | None = None,
    load_in: str | None = None,
    trust_remote_code: bool = False,
) -> nn.Module:
    """Load the decoder of a causal language model cut after `blocks` blocks, without language-model head.

    Args:
        source: a local directory or a Hub id.
        blocks: decoder blocks to keep; None keeps all.
        device: where the model runs; with `cuda` and no number, a model larger than one GPU is spread over all.
        dtype: of weights and activations.
        revision: of the Hub repository.
        load_in: `8bit` or `4bit` to quantise the blocks by bitsandbytes.
        trust_remote_code: whether code that comes with the model may run; it is never asked for at the terminal.

    Raises:
        ModelError: the model has fewer blocks than asked for, or bitsandbytes is not installed.
    """
    from transformers import AutoConfig, AutoModel

    # Read when oneDNN first runs: by default it keeps 1,024 kernels with their buffers, one for each shape of batch.
    # PyTorch's own cache in front of it keeps as many.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")
    origin = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(source, **origin)
    text_config = config.get_text_config()
    if blocks is not None:
        if blocks > text_config.num_hidden_layers:
            raise ModelError(f"{source} has {text_config.num_hidden_layers} blocks; {blocks} were asked for")
        text_config.num_hidden_layers = blocks
        if getattr(text_config, "layer_types", None):
            text_config.layer_types = text_config.layer_types[:blocks]
    placement: dict[str, object] = {}
    if device.type == "cuda":
        placement["device_map"] = "auto" if device.index is None else {"": device}
    if load_in is not None:
        placement |= {"quantization_config": _quantisation(load_in, dtype), "device_map": {"": device}}
    with quiet_transformers():
        model = AutoModel.from_pretrained(source, config=config, dtype=dtype, **origin, **placement)
    model = model if placement else model.to(device)
    return model.eval().requires_grad_(False)


def _quantisation(load_in: str, dtype: torch.dtype) -> object:
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise ModelError("--load_in needs the package bitsandbytes: pip install 'stratalens[quantised]'")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of every cast
    if load_in == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_type="nf4")


@contextmanager
def hooked(model: nn.Module, consumers: Mapping[str, Consumer]) -> Iterator[None]:
    """While open, every forward pass hands the input and the output of each named module to its consumer.

    Args:
        model: the decoder; hookpoints are module names relative to it, such as `layers.16`.
        consumers: hookpoint -> function of the module's input and output, both `[batch, seq, d_model]`.

    Raises:
        ModelError: the model has no module of that name.
    """
    handles = []

    def hook(consumer: Consumer):
        def on_forward(_module, args, kwargs, output):
            source = args[0] if args else kwargs["hidden_states"]
            consumer(source, output[0] if isinstance(output, tuple) else output)

        return on_forward

    try:
        for hookpoint, consumer in consumers.items():
            try:
                module = model.get_submodule(hookpoint)
            except AttributeError:
                raise ModelError(f"the model has no module `{hookpoint}`; the SAEs were made for another one") from None
            handles.append(module.register_forward_hook(hook(consumer), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def cut(model: nn.Module, hookpoint: str) -> None:
    """Drop the blocks above the one that a hookpoint such as `layers.16.mlp` lies in."""
    blocks, _, rest = hookpoint.partition(".")
    kept = int(rest.split(".")[0]) + 1
    setattr(model, blocks, getattr(model, blocks)[:kept])


@torch.inference_mode()
def forward(model: nn.Module, input_ids: Int[Tensor, "batch seq"]) -> None:
    """Run one bare forward pass: no head, no cache, no attention mask (right padding under causal attention)."""
    model(input_ids=input_ids.to(next(model.parameters()).device), use_cache=False)
