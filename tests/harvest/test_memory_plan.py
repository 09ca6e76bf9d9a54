"""Memory: estimated before a run, kept within a limit by several passes; batches are halved when it runs out."""

import json
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretend_gpus import pretend_gpus
from refusal import refusal, with_options
from threads import one_thread
from transformers import AutoConfig, AutoModel

from stratalens.cli.main import main
from stratalens.config.validation import make_config
from stratalens.errors import CapacityError
from stratalens.harvest import memory_plan
from stratalens.harvest.chunks import CHUNK_TOKENS, GPU_CHUNK_TOKENS
from stratalens.harvest.inputs import RunInputs, find_inputs
from stratalens.harvest.memory_plan import (
    ENTRY_CODE_BYTES,
    ENTRY_VALUE_BYTES,
    TYPICAL_L0,
    LayerBytes,
    MemoryEstimate,
    count_parameters,
    estimate_memory,
    latents_per_token,
    loaded_blocks,
    memory_limits,
    plan_passes,
)
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.memory import MemoryBytes, out_of_memory, peak_device_bytes, peak_memory_bytes
from stratalens.models.streams import Division
from stratalens.progress import NoProgress
from stratalens.saes.formats import sparsify
from stratalens.saes.formats.sparsify import load_encoder
from stratalens.saes.sae import Encoder
from stratalens.saes.steps import Linear

LIMITED = """
import resource, sys, torch, transformers, pandas, scipy.stats, matplotlib.pyplot, sklearn
from stratalens.commands import analyze as run
from stratalens.cli.main import main

def allow(more):
    virtual = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard if more is None else virtual + more * 1_000_000, hard))

def limited(*arguments, read=run.read_corpus):
    allow(int(sys.argv[2]))
    try:
        return read(*arguments)
    finally:
        allow(None)

torch.set_num_threads(1)
if sys.argv[1] == "reading":
    run.read_corpus = limited
else:
    allow(int(sys.argv[2]))
sys.exit(main(sys.argv[3:]))
"""
CPU = torch.device("cpu")
SMALL = ("--quiet", "--layers", "4", "--max_documents", "60")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are honoured on Linux alone")


def contents(output: Path) -> dict[str, bytes]:
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def limited_run(stage: str, megabytes: int, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the embedded model in a process whose further memory is limited, for one stage or from the start."""
    options = ["--layers", "4", "--max_documents", "60", "--threads", "1", "--output_dir", str(output), *more]
    command = [sys.executable, "-c", LIMITED, stage, str(megabytes), "analyze", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.serial
@linux
@pytest.mark.usefixtures("embedded_model")
def test_a_batch_that_does_not_fit_into_memory_is_halved_and_the_tables_are_the_same(tmp_path):
    large, small = tmp_path / "large", tmp_path / "small"
    done = limited_run("reading", 250, large, "--batch_tokens", "65536")
    assert done.returncode == 0, done.stderr
    record = json.loads((large / "run.json").read_text())
    assert record["harvest"]["batches_split"]["4"] > 0
    assert any("did not fit into memory" in warning for warning in record["warnings"])
    assert limited_run("reading", 8000, small).returncode == 0
    assert json.loads((small / "run.json").read_text())["harvest"]["batches_split"] == {"4": 0}
    tables = [pd.read_csv(one / "consolidated_top_features_all_layers.csv") for one in (large, small)]
    both = tables[0].merge(tables[1], on="feature_number")
    assert len(both) >= 28
    np.testing.assert_allclose(both["specialization_x"], both["specialization_y"], rtol=0.05, atol=0.01)


@pytest.mark.serial
@linux
@pytest.mark.usefixtures("embedded_model")
def test_without_memory_for_the_model_the_message_says_what_helps(tmp_path, documented):
    done = limited_run("everything", 60, tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "out of memory" in done.stderr
    assert "--batch_tokens" in done.stderr
    assert not (tmp_path / "out").exists()
    documented("Memory and workers", "no memory for the run", done.stderr)


def batch(lengths: list[int]) -> TokenBatch:
    sequences = [np.arange(1, length + 1) for length in lengths]
    return next(pack_batches(sequences, 10**6, ()))


def failing_above(tokens: int, problem: Callable[[], Exception]) -> Callable[[TokenBatch], list[tuple[int, int]]]:
    """Reads a batch into (passage, length) pairs unless it is larger than so many tokens."""

    def attempt(one: TokenBatch) -> list[tuple[int, int]]:
        if one.input_ids.numel() > tokens:
            raise problem()
        return list(zip(one.rows.tolist(), one.countable.sum(1).tolist(), strict=True))

    return attempt


PROBLEMS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "the allocator of the cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
    "mps, for a single buffer": lambda: RuntimeError("Invalid buffer size: 24.00 GiB"),
    "cuBLAS": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuDNN": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "Python": MemoryError,
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), limit=st.integers(60, 800))
def test_every_passage_is_read_once_however_often_a_batch_is_halved(problem, lengths, limit):
    runner = BatchRunner(10**6)
    whole = batch(lengths)
    read = [pair for part in runner.run(whole, failing_above(limit, problem)) for pair in part]
    assert sorted(read) == sorted(zip(whole.rows.tolist(), whole.countable.sum(1).tolist(), strict=True))
    assert (runner.batches_split == 0) == (whole.input_ids.numel() <= limit)
    assert runner.batch_tokens == 10**6 or runner.batch_tokens <= whole.input_ids.numel() // 2


def test_for_a_single_passage_that_does_not_fit_the_message_says_what_helps(documented):
    with pytest.raises(CapacityError, match=r"a single passage of 30 tokens.*--load_in 8bit") as error:
        list(BatchRunner(100).run(batch([30, 20]), failing_above(10, MemoryError)))
    documented("Memory and workers", "a passage that does not fit", str(error.value))


def test_an_error_that_is_not_about_memory_is_raised():
    def attempt(_batch: TokenBatch) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(BatchRunner(100).run(batch([30, 20]), attempt))
    assert not out_of_memory(ValueError("out of memory"))


@given(
    st.dictionaries(
        st.builds(Hookpoint, st.integers(0, 50)),
        st.tuples(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100)),
        min_size=1,
    ),
    st.tuples(st.integers(0, 200), st.integers(0, 200)),
    st.tuples(st.integers(1, 500), st.integers(1, 500)),
    st.booleans(),
)
def test_passes_contain_every_layer_once_the_deepest_first_and_fit_into_both_memories(sizes, fixed, limits, on_device):
    layers = {place: LayerBytes(*own) for place, own in sizes.items()}
    estimate = MemoryEstimate(process=fixed[0], model=fixed[1], batch=0, layers=layers, on_device=on_device)
    passes = plan_passes(estimate, MemoryBytes(*limits))

    def fits(group: tuple[Hookpoint, ...]) -> bool:
        host = fixed[0] + sum(layers[place].statistics + layers[place].passages for place in group)
        device = fixed[1] + sum(layers[place].sae for place in group)
        device += sum(layers[place].passages for place in group) if on_device else 0
        return (host <= limits[0] and device <= limits[1]) if on_device else host + device <= limits[0]

    assert sorted(layer for group in passes for layer in group) == sorted(layers)
    assert [max(group) for group in passes] == sorted((max(group) for group in passes), reverse=True)
    for group in passes:
        assert len(group) == 1 or fits(group)
    for first, second in pairwise(passes):
        assert not fits((*first, max(second))), "no pass too many"


@pytest.fixture
def tiny_inputs(tiny_arguments) -> RunInputs:
    return find_inputs(make_config(**tiny_options(tiny_arguments)), NoProgress())


def tiny_options(arguments: list[str]) -> dict[str, object]:
    """Options of the arguments of a tiny run."""
    words = [word for word in arguments if word != "--allow_poor_fit"]
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def test_every_part_of_the_announced_memory_is_named_and_their_sum_is_the_total(tiny_arguments, tiny_inputs):
    config = make_config(**tiny_options(tiny_arguments))
    for device in (torch.device("cpu"), torch.device("cuda"), torch.device("mps")):
        estimate = estimate_memory(config, tiny_inputs, device, torch.float32)
        line = estimate.describe()
        names = re.findall(r"([A-Za-z]+) \d+\.\d\d", line)
        on_device = device.type != "cpu"
        assert set(names) == {"model", "batch", "SAEs", "program", "statistics", "passages"}
        assert names.count("passages") == 1 + on_device, "on the GPU until a chunk is read, and then on the host"
        assert len(names) == 6 + on_device
        layers = estimate.layers.values()
        passages = sum(layer.passages for layer in layers)
        working = estimate.model + estimate.batch + sum(layer.sae for layer in layers) + passages * on_device
        beside = estimate.process + sum(layer.statistics for layer in layers) + passages
        assert estimate.total == ((beside + working, 0) if device.type == "cpu" else (beside, working))
        assert ("on the GPU" in line and "of the host" in line) == (device.type != "cpu")


def test_the_block_that_only_the_fit_check_reads_counts(tiny_arguments, tiny_inputs):
    config = make_config(**tiny_options(tiny_arguments))
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(config.base_model))
    assert loaded_blocks(tiny_inputs) == 4
    estimate = estimate_memory(config, tiny_inputs, torch.device("cpu"), torch.float32)
    assert estimate.model == pytest.approx(4 * sum(one.numel() for one in model.parameters()), rel=0.01)
    assert count_parameters(tiny_inputs, 2)[0] == count_parameters(tiny_inputs, 4)[0] // 2


@pytest.fixture
def divided(monkeypatch) -> Callable[[int], None]:
    """Sets how many batches are read beside each other on the CPU."""

    def divide(streams: int) -> None:
        on_cpu, on_gpu = Division(streams, 1, ahead=streams > 1), Division(1, 1, ahead=True)
        monkeypatch.setattr(memory_plan, "division_of", lambda device: on_cpu if device == CPU else on_gpu)

    return divide


def test_batches_that_are_read_beside_each_other_count_together(tiny_arguments, tiny_inputs, divided):
    """They share the tokens of `--batch_tokens`, but each has at least one passage and pre-activations of its own."""

    def batch_bytes(**options: object) -> int:
        config = make_config(**tiny_options(tiny_arguments) | options)
        return estimate_memory(config, tiny_inputs, CPU, torch.float32).batch

    short, one_passage, long = {"batch_tokens": 2048}, {"batch_tokens": 512, "max_length": 512}, {"batch_tokens": 10**7}
    divided(1)
    alone = {name: batch_bytes(**own) for name, own in (("short", short), ("passage", one_passage), ("long", long))}
    divided(2)
    assert batch_bytes(**short) == alone["short"]
    assert batch_bytes(**one_passage) == 2 * alone["passage"]
    assert batch_bytes(**long) == alone["long"], "no batch has more tokens than a chunk"


def test_a_wide_sae_has_its_most_pre_activations_once_for_each_batch(tiny_arguments, tiny_inputs, divided, monkeypatch):
    monkeypatch.setattr(memory_plan, "max_dense_elements", lambda _device: 1000)
    config = make_config(**tiny_options(tiny_arguments))
    batch = list[int]()
    for streams in (1, 2):
        divided(streams)
        batch.append(estimate_memory(config, tiny_inputs, CPU, torch.float32).batch)
    assert batch[1] - batch[0] == 12 * 1000


def test_values_and_codes_of_the_chunks_that_are_held_count(tiny_arguments, tiny_inputs, divided):
    def passages(device: str, **options: object) -> int:
        config = make_config(**tiny_options(tiny_arguments) | options)
        estimate = estimate_memory(config, tiny_inputs, torch.device(device), torch.float32)
        return sum(layer.passages for layer in estimate.layers.values())

    divided(1)
    one_chunk = passages("cpu")
    firing = CHUNK_TOKENS * sum(latents_per_token(sae) for sae in tiny_inputs.saes.values())
    assert one_chunk == (ENTRY_VALUE_BYTES + ENTRY_CODE_BYTES) * firing
    assert passages("cpu", keep_gb=0) == passages("cpu", no_examples=True) == ENTRY_VALUE_BYTES * firing
    assert passages("cuda") == 2 * one_chunk * GPU_CHUNK_TOKENS // CHUNK_TOKENS, "the CPU works beside it"
    divided(2)
    assert passages("cpu") == 2 * one_chunk, "one is finished while the next is being read"


def test_without_a_limit_the_declared_number_of_latents_of_a_token_counts(tiny_inputs):
    sae = next(iter(tiny_inputs.saes.values()))
    assert latents_per_token(sae) == sae.k
    assert latents_per_token(replace(sae, k=None, l0=52.5)) == 52.5
    assert latents_per_token(replace(sae, k=None, l0=None)) == TYPICAL_L0


def limits_on(device: str, estimate: MemoryEstimate, **options: object) -> MemoryBytes:
    return memory_limits(make_config(**options), estimate, torch.device(device))


def test_on_gpus_two_budgets_are_planned_and_a_model_that_must_be_spread_counts_all_of_them(monkeypatch):
    pretend_gpus(monkeypatch, [1000, 3000])
    layers = {Hookpoint(1): LayerBytes(100, 10**6, 0)}
    small = MemoryEstimate(process=0, model=500, batch=100, layers=layers, on_device=True)
    large = MemoryEstimate(process=0, model=1500, batch=100, layers=layers, on_device=True)
    monkeypatch.setattr(memory_plan, "free_host_bytes", lambda: 10_000)
    assert limits_on("cuda", small) == (9000, 900)
    assert limits_on("cuda", large) == (9000, 900 + 2700)
    assert limits_on("cuda:1", large) == (9000, 2700)
    assert limits_on("cuda", large, memory_gb=1e-6) == (9000, 1000)


def test_on_mps_the_limit_of_metal_counts_and_what_is_free_of_the_host(monkeypatch):
    estimate = MemoryEstimate(process=0, model=1, batch=1, layers={}, on_device=True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 3000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1000)
    for free, expected in ((10_000, 1800), (1000, 900)):
        monkeypatch.setattr(memory_plan, "free_host_bytes", lambda free=free: free)
        monkeypatch.setattr("stratalens.models.memory.free_host_bytes", lambda free=free: free)
        assert limits_on("mps", estimate) == (round(0.9 * free), expected)


def test_the_limit_given_for_the_cpu_is_that_of_the_host():
    estimate = MemoryEstimate(process=0, model=1, batch=1, layers={}, on_device=False)
    assert limits_on("cpu", estimate, memory_gb=2) == (2_000_000_000, 0)
    assert limits_on("cpu", estimate).device == 0


def test_layers_whose_statistics_do_not_fit_on_the_host_are_read_in_several_passes_although_the_gpu_has_room():
    layers = {Hookpoint(number): LayerBytes(sae=1, statistics=70, passages=30) for number in range(4)}
    estimate = MemoryEstimate(process=50, model=10, batch=10, layers=layers, on_device=True)
    assert [len(group) for group in plan_passes(estimate, MemoryBytes(260, 10**9))] == [2, 2]
    assert [len(group) for group in plan_passes(estimate, MemoryBytes(10**9, 10**9))] == [4]


def test_the_peak_is_that_of_all_gpus_together(monkeypatch):
    pretend_gpus(monkeypatch, [0, 0, 0])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda number: 10**12 * (number + 1))
    assert peak_device_bytes() == 6 * 10**12
    assert peak_memory_bytes() == 6 * 10**12
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_device_bytes() == 0
    assert 10**8 < peak_memory_bytes() < 10**12


def test_several_passes_give_the_bytes_of_one(tiny_arguments, tmp_path, capsys):
    with one_thread():
        assert main(["analyze", *tiny_arguments]) == 0
        assert "reading the text" not in capsys.readouterr().out
        several = with_options(tiny_arguments, {"output_dir": str(tmp_path / "several"), "memory_gb": "0.001"})
        assert main(["analyze", *several]) == 0
    printed = capsys.readouterr()
    assert "The layers do not fit into memory together; reading the text 2 times: 2; 0" in printed.out
    assert "one layer alone may not fit" in printed.err
    assert contents(tmp_path / "several") == contents(tmp_path / "out")


@pytest.mark.parametrize(("limit", "together"), [("0.001", 1), ("100", 2)], ids=["two passes", "one pass"])
def test_encoders_of_one_pass_are_freed_before_those_of_the_next_are_loaded(
    tiny_arguments, monkeypatch, limit, together
):
    """Counted whenever an encoder is loaded: for the trial, the fit check, the harvest and evidence."""
    weights = list[weakref.ref]()
    alive = list[int]()

    def counted(folder: Path) -> Encoder:
        encoder = load_encoder(folder)
        weights.extend(weakref.ref(step.weight) for step in encoder.steps if isinstance(step, Linear))
        alive.append(sum(weight() is not None for weight in weights))
        return encoder

    monkeypatch.setattr(sparsify, "load_encoder", counted)
    assert main(["analyze", "--quiet", *tiny_arguments, "--memory_gb", limit]) == 0
    assert max(alive) == together
    if together == 2:
        assert len(alive) == 4, "loaded for the trial and for the fit check, and not again"
    else:
        assert len(alive) > 4, "passes follow each other"


@pytest.mark.serial
@pytest.mark.usefixtures("embedded_model")
@pytest.mark.parametrize("more", [("--layers", "4"), ("--layers", "4", "28", "--batch_tokens", "16384")])
def test_the_estimate_is_near_the_measured_memory(tmp_path, more):
    command = [sys.executable, "-m", "stratalens", "analyze", "--max_documents", "60", "--output_dir", str(tmp_path)]
    printed = subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
    match = re.search(r"Memory: about ([\d.]+) GB", printed)
    assert match is not None, printed
    measured = json.loads((tmp_path / "run.json").read_text())["peak_memory_bytes"] / 1e9
    print(f"estimated {match[1]} GB, measured {measured:.2f} GB")
    assert 0.75 < float(match[1]) / measured < 1.33


@pytest.fixture(scope="module")
def plain(embedded_model, tmp_path_factory) -> Path:
    """A run of the embedded model cut after block 4, as its weights are."""
    output = tmp_path_factory.mktemp("plain") / "out"
    assert main(["analyze", *SMALL, "--output_dir", str(output)]) == 0
    return output


@pytest.mark.parametrize("load_in", ["8bit", "4bit"])
def test_a_quantised_model_gives_similar_aurocs(tmp_path, load_in, plain):
    output = tmp_path / "out"
    assert main(["analyze", *SMALL, "--load_in", load_in, "--output_dir", str(output)]) == 0
    quantised, exact = (
        pd.read_parquet(run / "layer_4" / "all_features.parquet").set_index("feature_number")["auroc"]
        for run in (output, plain)
    )
    assert not quantised.equals(exact)
    assert quantised.corr(exact) > 0.9


def test_quantised_loading_without_its_package_names_it(tiny_arguments, capsys, monkeypatch, documented):
    monkeypatch.setattr("stratalens.models.loading.find_spec", lambda _name: None)
    line = refusal([*tiny_arguments, "--load_in", "8bit"], capsys)
    assert "pip install 'stratalens[quantised]'" in line
    documented("Memory and workers", "quantised loading without bitsandbytes", line)
