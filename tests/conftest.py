"""Shared fixtures: a tiny random model with SAEs, used by most tests, and one run of the real embedded model."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from figures_off import draw_no_figures
from shared import made_once
from tiny import tiny_run_arguments, tiny_tokenizer, write_small_texts, write_tiny_model, write_tiny_saes
from transformers import AutoTokenizer

from stratalens.models.embedded import dense_copy

pytest_plugins = ["browser", "chat_servers", "error_book", "finished_result"]

# As a background job pytest ignores Ctrl-C, and the runs that it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
REAL_PARTS = frozenset(["embedded_model", "embedded_run", "browser", "transformers_serve", "cluster", "offline"])
"""Fixtures whose tests run in `make test-real`."""

if "PYTEST_XDIST_WORKER" in os.environ:  # workers and the programs that they start share the cores
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL_PARTS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("real")


EMBEDDED_DOCUMENTS = "200"
"""Documents of each side that the tests of the embedded model read."""


@pytest.fixture(autouse=True)
def limit_of_csv_cells() -> Iterator[None]:
    """Set back after a test the longest cell that Python's CSV reader takes, which is one number for a process."""
    limit = csv.field_size_limit()
    yield
    csv.field_size_limit(limit)


@pytest.fixture(autouse=True)
def no_figures(request, monkeypatch) -> None:
    """Do not draw static figures, which takes longer than a tiny run, unless the test is marked `figures`."""
    if request.node.get_closest_marker("figures") is None:
        draw_no_figures(monkeypatch)


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """Directory of the real embedded model."""
    return dense_copy().directory


@pytest.fixture(scope="session")
def real_tokenizer(embedded_model):
    """The embedded model's tokenizer."""
    return AutoTokenizer.from_pretrained(embedded_model)


@pytest.fixture(scope="session")
def tokenizer():
    """The tiny model's tokenizer."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random Llama of four blocks, as a local directory."""
    return made_once(tmp_path_factory, "tiny_model", write_tiny_model)


@pytest.fixture(scope="session")
def tiny_saes(tmp_path_factory) -> Path:
    """A run directory, with a space in its name, of random SAEs at layers 0 and 2 of the tiny model."""
    return made_once(tmp_path_factory, "tiny saes", write_tiny_saes)


@pytest.fixture(scope="session")
def small_texts(tmp_path_factory) -> tuple[Path, Path]:
    """Two jsonl files of 24 short documents each, domain and general."""
    folder = made_once(tmp_path_factory, "texts", write_small_texts)
    return folder / "domain.jsonl", folder / "general.jsonl"


@pytest.fixture
def tiny_arguments(tiny_model, tiny_saes, small_texts, tmp_path) -> list[str]:
    """Arguments of a run of the tiny model that takes less than a second; its random SAEs need `--allow_poor_fit`."""
    return tiny_run_arguments(tiny_model, tiny_saes, small_texts, tmp_path / "out")


@pytest.fixture(scope="session")
def embedded_run(tmp_path_factory) -> Path:
    """Result directory of an analysis of the embedded model, run by the command line on two threads.

    It takes a fixed sample of the built-in texts, of every kind its share.
    """

    def run(directory: Path) -> None:
        command = [sys.executable, "-m", "stratalens", "analyze", "--output_dir", str(directory / "results")]
        command += ["--max_documents", EMBEDDED_DOCUMENTS]
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "2"}, check=True)

    return made_once(tmp_path_factory, "embedded", run, for_all_calls=True) / "results"
