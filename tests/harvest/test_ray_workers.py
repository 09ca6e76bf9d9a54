"""A real Ray cluster on this machine, with two workers: the same bytes as one process, also when one is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from killing import command, contents, run
from published_layouts import arrays, write_layout
from refusal import refusal, with_options

from stratalens.cli.main import main
from stratalens.harvest import inputs

pytestmark = [pytest.mark.real, pytest.mark.serial]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    options = ["--head", "--num-cpus=2", "--include-dashboard=false", "--port=6399", "--object-store-memory=200000000"]
    environment = os.environ | QUIET
    subprocess.run([*RAY, "start", *options], check=True, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([*RAY, "stop", "--force"], check=True, env=environment, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def single(embedded_model, tmp_path_factory) -> dict[str, bytes]:
    """Files of a run in one process of one thread."""
    output = tmp_path_factory.mktemp("single") / "out"
    run(output, "--threads", "1")
    return contents(output)


def readers() -> list[psutil.Process]:
    """Actors that are reading a shard now: Ray names a process after what it does."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "ray::RayReader.read" in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def test_without_a_cluster_the_line_says_how_to_start_one(tiny_arguments, capsys, documented):
    arguments = with_options(tiny_arguments, {"threads": "1", "workers": "ray"})
    line = refusal(arguments, capsys)
    assert "no Ray cluster was found" in line
    assert "start one with `ray start --head`, or set RAY_ADDRESS" in line
    documented("Memory and workers", "no Ray cluster", line)


@pytest.mark.usefixtures("cluster")
def test_two_workers_give_the_bytes_of_one_process_although_one_is_killed_in_the_middle(single, tmp_path):
    output = tmp_path / "out"
    process = subprocess.Popen(command(output, "--workers", "ray", "--threads", "1"), env=os.environ | QUIET)
    seen: set[int] = set()
    killed = None
    while process.poll() is None and killed is None:
        reading = readers()
        seen |= {one.pid for one in reading}
        if len(seen) == 2 and reading:
            killed = reading[0].pid
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    assert process.wait(300) == 0
    assert killed is not None, "both workers were reading, and one of them was killed"
    assert contents(output) == single


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("layout", ["gemma_scope", "llama_scope"])
def test_workers_read_saes_of_other_libraries_as_one_process_does(tiny_arguments, tmp_path, layout):
    root = tmp_path / "saes"
    write_npz(root) if layout == "gemma_scope" else write_layout(root, layout)
    results = []
    for workers in ("local", "ray"):
        output = tmp_path / workers
        options = {"sae_model": str(root), "output_dir": str(output), "threads": "1", "workers": workers}
        assert main(["analyze", "--quiet", *with_options(tiny_arguments, options)]) == 0
        results.append(contents(output))
    assert results[0] == results[1]
    assert results[0]["consolidated_top_features_all_layers.csv"].count(b"\n") > 1


def write_npz(root: Path) -> None:
    """A JumpReLU SAE of block 2 in the layout of Gemma Scope."""
    folder = root / "gemma-scope-2b-pt-res/layer_2/width_16k/average_l0_20"
    folder.mkdir(parents=True)
    own = arrays(2)
    named = {"W_enc": own["encoder"].T, "W_dec": own["decoder"], "b_enc": own["b_enc"], "b_dec": own["b_dec"]}
    named["threshold"] = torch.full_like(own["b_enc"], 0.3)
    np.savez(folder / "params.npz", **{name: array.numpy() for name, array in named.items()})


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_finds_another_model_by_the_same_name_is_refused(tiny_arguments, capsys, monkeypatch, documented):
    find = inputs.find_model
    monkeypatch.setattr(inputs, "find_model", lambda *given: find(*given)._replace(digest="of the driver's model"))
    arguments = with_options(tiny_arguments, {"threads": "1", "workers": "ray"})
    line = refusal(arguments, capsys)
    assert "a worker found a different model or different SAEs under this name; copy the same files" in line
    documented("Memory and workers", "another model on a worker's machine", line)


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_does_not_fit_the_cluster_is_refused(tiny_arguments, capsys, documented):
    arguments = with_options(tiny_arguments, {"threads": "3", "workers": "ray"})
    line = refusal(arguments, capsys)
    assert "a worker needs 3 CPUs, the cluster has 2; use fewer --threads" in line
    documented("Memory and workers", "a cluster with fewer CPUs than a worker takes", line)
