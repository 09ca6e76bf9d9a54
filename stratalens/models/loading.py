"""Load the first blocks of the base model, without its language-model head, and choose device and dtype."""

import io
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratalens.errors import ModelError, counted
from stratalens.models.families import FINAL_NORMS, blocks_name, decoder_of, is_for_text, number_of_blocks
from stratalens.models.gguf_file import gguf_arguments, is_gguf
from stratalens.models.hooks import drop_blocks_above, forward
from stratalens.models.hub import hub_errors, quiet_transformers
from stratalens.models.model_config import load_config
from stratalens.models.placement import Placement, TooLarge, placement_options, require_on_gpus
from stratalens.models.source import ModelSource

SCALES = re.compile("scale|zero|absmax|quant")
"""Names of tensors by which quantised weights are multiplied or shifted."""

GPU_REMEDY = "use shallower --layers, --dtype bfloat16, --load_in 4bit or --device cpu"


def choose_device(name: str = "auto") -> torch.device:
    """Resolve `auto` to cuda, mps or cpu, in this order.

    Raises:
        ModelError: the machine does not have that device.
    """
    if name != "auto":
        device = torch.device(name)
        available = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
        if not available[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
            raise ModelError(f"device: {name} is not available; use --device auto")
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


def load_model(
    source: str | Path,
    *,
    blocks: int | None,
    placement: Placement,
    revision: str | None = None,
    trust_remote_code: bool = False,
    head: bool = False,
) -> nn.Module:
    """Load the first `blocks` blocks of a causal language model, without its head unless it is asked for.

    Args:
        source: a local directory, a GGUF file or a Hub id.
        blocks: decoder blocks to keep, which may be none; None keeps all.
        placement: where and in which numbers.
        revision: branch, tag or commit of the Hub repository; None is its default branch.
        trust_remote_code: whether code that comes with the model may run; the user is never prompted.
        head: whether the model gives logits.

    Raises:
        ModelError: the model has fewer blocks than asked for, its files lack weights of them, of the embedding or of
            the head or hold scales that it does not apply, bitsandbytes is not installed, or the GPUs are too small.
    """
    from transformers import GgufConfig

    _limit_kernel_caches()
    origin_options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = load_config(str(source), ModelError, **origin_options)
    kind: Any = _first_blocks(config, blocks, head, trust_remote_code)
    device, dtype, load_in = placement.device, placement.dtype, placement.load_in
    if load_in is not None and is_gguf(str(source)):
        raise ModelError(f"{source}: --load_in quantises weights, and those of a GGUF file are; leave it out")
    too_large = TooLarge(str(source), GPU_REMEDY, ModelError)
    options = placement_options(lambda: kind(config), config, placement, too_large)
    if load_in is not None:
        options["quantization_config"] = _quantisation_config(load_in, dtype)
    with quiet_transformers():
        directory, file = gguf_arguments(str(source))
        if file:
            options |= {**file, "quantization_config": GgufConfig(dequantize=True)}
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": head}
        with redirect_stderr(io.StringIO()) if file else nullcontext():  # the GGUF reader shows its own progress bar
            model, info = kind.from_pretrained(directory, config=config, dtype=dtype, **origin_options, **options)
    require_on_gpus(model, placement, too_large)
    unfit = {name for name, *_ in info["mismatched_keys"]} if head else set[str]()
    _require_weights(str(source), model, unfit.union(info["missing_keys"]), head)
    if not head and getattr(config, "quantization_config", None) is None:
        _require_places(str(source), model, info["unexpected_keys"])
    model = model if "device_map" in options else model.to(device)
    return model.eval().requires_grad_(False)


def _first_blocks(config: Any, blocks: int | None, head: bool, trust_remote_code: bool) -> type:
    """The class of a decoder, or of one with a head, that has its first blocks only: weights of others are never read.

    The configuration stays as it is: a model may derive more from its number of blocks than how many it builds.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    with torch.device("meta"):
        whole = (AutoModelForCausalLM if head else AutoModel).from_config(config, trust_remote_code=trust_remote_code)
    kind = type(whole)
    if blocks is None:
        return kind
    if blocks > number_of_blocks(whole):
        raise ModelError(
            f"{config.name_or_path} has {counted(number_of_blocks(whole), 'block')}; {blocks} were asked for"
        )

    def build(self: nn.Module, *arguments: object, **options: object) -> None:
        kind.__init__(self, *arguments, **options)
        drop_blocks_above(self, blocks - 1)

    return type(kind.__name__, (kind,), {"__init__": build, "__module__": kind.__module__})


def _require_weights(source: str, model: Any, missing: Collection[str], head: bool) -> None:
    """Check that the files held what is needed of the model; what they lack would be random.

    Raises:
        ModelError: they did not.
    """
    needed = {id(tensor) for tensor in (_head_tensors(model) if head else _text_tensors(model))}
    tensors = model.state_dict(keep_vars=True).items()
    names = sorted(name for name, tensor in tensors if name in missing and id(tensor) in needed)
    if names:
        raise ModelError(
            f"{source}: its files lack {counted(len(names), 'weight')} of the model ({', '.join(names[:2])}"
            f"{', …' if len(names) > 2 else ''}); copy or download it again, or correct its config.json"
        )


def _require_places(source: str, model: nn.Module, unexpected: Collection[str]) -> None:
    """Check that the files hold no scales of a layer that the model leaves out: its weights mean nothing without them.

    Other tensors without a place, such as biases that are zero, are left out as transformers does.

    Raises:
        ModelError: they do.
    """
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = sorted(
        name
        for name in unexpected
        if SCALES.search(name.rpartition(".")[2])
        and {(layer := name.rpartition(".")[0]), layer.removeprefix(prefix)} & layers
    )
    if names:
        raise ModelError(
            f"{source}: its files hold {counted(len(names), 'tensor')} of layers that its config.json has no place for "
            f"({', '.join(names[:2])}{', …' if len(names) > 2 else ''}); correct config.json, or use the version of "
            "transformers that wrote it"
        )


def _text_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield what the decoder needs for text, up to its last block: weights, and buffers that belong in its files."""
    decoder, blocks = decoder_of(model), f"{blocks_name(model)}."
    for name, tensor in decoder.state_dict(keep_vars=True).items():
        is_final_norm = not name.startswith(blocks) and any(part in FINAL_NORMS for part in name.split("."))
        if is_for_text(decoder, name) and not is_final_norm:
            yield tensor


def _head_tensors(model: Any) -> Iterator[Tensor]:
    """Yield the weights of blocks, embedding, final norm and unembedding."""
    parts = [model.get_input_embeddings(), model.get_output_embeddings()]
    parts += [module for module in decoder_of(model).modules() if isinstance(module, nn.ModuleList)]
    parts += [getattr(decoder_of(model), name, None) for name in FINAL_NORMS]
    for part in parts:
        yield from part.parameters() if part is not None else ()


def _limit_kernel_caches() -> None:
    """Limit the caches of oneDNN and PyTorch to 16 kernels each; by default they keep 1,024, one per batch shape.

    Each cached kernel holds its buffers in memory. The environment variables are read when oneDNN first runs.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")


def _quantisation_config(load_in: str, dtype: torch.dtype) -> object:
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise ModelError("--load_in needs the package bitsandbytes: pip install 'stratalens[quantised]'")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it logs every cast
    if load_in == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_type="nf4")


def load_blocks(
    source: ModelSource, blocks: int, placement: Placement, say: Callable[[str], None] = lambda _message: None
) -> nn.Module:
    """Load the first `blocks` blocks of a model that was found, and check that they run.

    Args:
        source: the model.
        blocks: how many of its blocks are needed.
        placement: where and in which numbers.
        say: called with a message if the model runs only as a whole.

    Raises:
        ModelError: the model cannot be loaded or run.
    """

    def load(number: int | None) -> nn.Module:
        model = load_model(
            source.location,
            blocks=number,
            placement=placement,
            revision=source.revision,
            trust_remote_code=source.trust_remote_code,
        )
        forward(model, torch.zeros((1, 2), dtype=torch.long))  # some errors in a config appear only in a forward pass
        return model

    with hub_errors(source.location, ModelError):
        try:
            return load(blocks)
        except (IndexError, KeyError, AttributeError, TypeError, ValueError) as error:
            if blocks == source.num_layers or isinstance(error, UnicodeError):
                raise
        model = load(None)
        say(f"{source.name} runs only as a whole: {counted(source.num_layers, 'block')} loaded, {blocks} needed")
        return model
