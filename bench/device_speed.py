"""The parts of `device.py` that measure time and memory on a device."""

import importlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from device_checks import analysed, words_of
from device_setting import Numbers, Opened, Setting, seconds_of, wait_for
from torch import Tensor

from stratalens.harvest.chunks import chunks
from stratalens.harvest.shards import Shard
from stratalens.models.batches import pack_batches
from stratalens.models.hooks import forward
from stratalens.saes.activations import TopK
from stratalens.saes.steps import Linear

CUDA_STEPS = "stratalens.saes.cuda_steps"
"""Module of the products and selections for a GPU, where the package has one."""
MEASURED_RUN = """
import json, sys
from stratalens.cli.main import main
from stratalens.models.memory import peak_device_bytes, peak_resident_bytes
code = main(["analyze", *sys.argv[1:]])
print("PEAKS", json.dumps({"code": code, "device": peak_device_bytes(), "host": peak_resident_bytes()}))
"""


def cuda_step(name: str) -> Any:
    """A step for GPUs by its name; None where the package has none."""
    return getattr(importlib.import_module(CUDA_STEPS), name, None) if find_spec(CUDA_STEPS) else None


def products(setting: Setting) -> Numbers:
    """Time and error of the products by which vectors are encoded, for weights that bfloat16 holds and for others."""
    tokens, d_model, latents = (64, 64, 512) if setting.small else (4096, 4096, 131_072)
    device = setting.device
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(tokens, d_model, generator=generator, device=device).bfloat16()
    weight = torch.randn(latents, d_model, generator=generator, device=device) / d_model**0.5
    bias = torch.zeros(latents, device=device)
    rows = slice(0, min(256, tokens)), slice(0, 512)
    found: Numbers = {}
    for kind, own in (("bfloat16 weights", weight.bfloat16().float()), ("float32 weights", weight)):
        exact = x[rows[0]].double() @ own[rows[1]].double().T if device.type != "mps" else None
        for name, product in _products(own, bias, device).items():
            error = None if exact is None else float((product(x)[rows[0], rows[1]].double() - exact).abs().max())
            found[f"{kind}, {name}"] = {
                "ms": round(1e3 * seconds_of(lambda product=product: product(x), device), 3),
                "largest_error": None if error is None or exact is None else error / float(exact.abs().max()),
            }
    return found


def _products(weight: Tensor, bias: Tensor, device: torch.device) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name -> a product of the weights with vectors in bfloat16."""
    step = Linear.of(weight, bias)
    found: dict[str, Callable[[Tensor], Tensor]] = {"the package on the CPU": step}
    found["float32"] = lambda x: torch.addmm(bias, x.float(), weight.T)
    found["bfloat16 with a bfloat16 result"] = lambda x: (x @ weight.bfloat16().T).float()
    if device.type == "cuda":
        found["TF32"] = lambda x: _in_tf32(x, weight)
        found["bfloat16 with a float32 result"] = lambda x: torch.mm(x, weight.bfloat16().T, out_dtype=torch.float32)
    if (split := cuda_step("SplitLinear")) is not None:
        found["the package on a GPU (split)"] = split.of(step, device)
    return found


def _in_tf32(x: Tensor, weight: Tensor) -> Tensor:
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        return x.float() @ weight.T
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def selection(setting: Setting) -> Numbers:
    """Time of the selection of the k largest of each token, and whether one by groups gives the same set."""
    tokens, latents, k = (16, 16_384, 8) if setting.small else (1024, 131_072, 32)
    pre = torch.randn(tokens, latents, generator=torch.Generator(setting.device).manual_seed(0), device=setting.device)
    plain = TopK(k)
    found: Numbers = {"topk_ms": 1e3 * seconds_of(lambda: plain(pre), setting.device)}
    if (grouped := cuda_step("GroupedTopK")) is not None:
        other = grouped(k)
        found["grouped_ms"] = 1e3 * seconds_of(lambda: other(pre), setting.device)
        keys = [one.token * latents + one.latent for one in (plain(pre), other(pre))]
        found["right"] = torch.equal(*(one.sort().values for one in keys))
    return found


def announced_memory(setting: Setting) -> Numbers:
    """Announced against measured memory for 1, 2 and all layers together, and for two passes over the text."""
    found: Numbers = {}
    cases: dict[str, dict[str, object]] = {
        f"{count} layers": {"layers": setting.layers[-count:]} for count in (1, 2, len(setting.layers))
    }
    cases["two passes"] = {"layers": setting.layers[-2:], "memory_gb": 0.001}
    for name, changed in cases.items():
        words = words_of(setting.options(**changed, output_dir=str(setting.folder / f"memory {name}")))
        done = subprocess.run([sys.executable, "-c", MEASURED_RUN, *words], capture_output=True, text=True, check=False)
        peaks = re.search(r"PEAKS (.*)", done.stdout)
        assert peaks is not None, done.stderr[-500:]
        own = json.loads(peaks[1])
        assert own["code"] == 0, done.stderr[-500:]
        printed = " ".join(done.stdout.split())
        on_gpu = re.search(r"Memory: about ([\d.]+) GB on the GPU", printed)
        on_host = re.search(r"(?:Memory:|and) about ([\d.]+) GB (?:of the host )?\(", printed)
        found[name] = {
            "host_gb": own["host"] / 1e9,
            "host_announced": None if on_host is None else float(on_host[1]),
            "gpu_gb": own["device"] / 1e9,
            "gpu_announced": None if on_gpu is None else float(on_gpu[1]),
            "passes": 2 if "reading the text 2 times" in printed else 1,
        }
    return found


def quantised(setting: Setting) -> Numbers:
    """The correlation of AUROCs of a quantised model, and of one in float16, with those of the model in bfloat16."""
    layer = setting.layers[-1]

    def aurocs(name: str, **changed: object) -> np.ndarray:
        output = analysed(setting.options(layers=(layer,), **changed), setting.folder / f"quantised_{name}")
        table = pd.read_parquet(output / f"layer_{layer}" / "all_features.parquet")
        return table.sort_values("feature_number")["auroc"].to_numpy(float)

    exact = aurocs("bfloat16", dtype="bfloat16")
    found: Numbers = {}
    for name, changed in (("8bit", {"load_in": "8bit"}), ("4bit", {"load_in": "4bit"}), ("float16", {})):
        dtype = "float16" if name == "float16" else "bfloat16"
        found[name] = "failed"
        with suppress(AssertionError):
            found[name] = round(_correlation(aurocs(name, dtype=dtype, **changed), exact), 4)
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[known], b[known])[0, 1])


def speed(setting: Setting) -> Numbers:
    """Tokens a second of the harvest and of the bare forward pass, in turn, at three sizes of batches."""
    sizes = (512, 1024, 2048) if setting.small else (4096, 16_384, 65_536)
    return _speeds(Opened.of(setting.options()), setting, sizes)


def wide_speed(setting: Setting) -> Numbers:
    """The same with two random wide SAEs."""
    layers = setting.layers[:2]
    width = 32 if setting.small else 576
    wide = setting.options(sae_model=str(setting.wide_saes(layers, width)), layers=layers)
    if not setting.small:
        from stratalens.models.embedded import dense_copy

        wide["base_model"] = str(dense_copy().directory)
    opened = Opened.of(wide)
    return _speeds(opened, setting, (opened.config.tokens_per_batch,))


def _speeds(opened: Opened, setting: Setting, sizes: tuple[int, ...]) -> Numbers:
    shards = opened.shards()
    found: Numbers = {}
    for size in sizes:
        batches = _batches(opened, shards, size, setting.device)
        tokens = sum(batch.tokens for batch in batches)

        def bare(batches: list = batches) -> None:
            for batch in batches:
                forward(opened.model.model, batch.input_ids)

        def whole(size: int = size) -> None:
            assert list(opened.read(shards, size))

        seconds: dict[str, list[float]] = {"bare": [], "harvest": []}
        bare()
        whole()
        for _ in range(2 if setting.small else 3):
            for name, work in (("bare", bare), ("harvest", whole)):
                wait_for(setting.device)
                started = time.perf_counter()
                work()
                wait_for(setting.device)
                seconds[name].append(time.perf_counter() - started)
        found["tokens"] = tokens
        per_second = {name: round(tokens / median(own)) for name, own in seconds.items()}
        found[f"batches of {size}"] = per_second | {"ratio": round(per_second["harvest"] / per_second["bare"], 3)}
    return found


def _batches(opened: Opened, shards: list[Shard], size: int, device: torch.device) -> list:
    special = opened.inputs.cutter.special_ids
    return [
        batch.to(device)
        for shard in shards
        for chunk in chunks(shard, opened.inputs.cutter, device.type)
        for batch in pack_batches(chunk.sequences, size, special)
    ]
