"""The changes that docs/architecture.md shows under Extending, made in a copy of the package that is then run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import TINY_LATENTS, TINY_WIDTH

import stratalens

REPOSITORY = Path(stratalens.__file__).parent.parent
MAX_LINES = 30
SECTION = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
CHANGES = re.findall(r"```diff\n(.*?)```", SECTION, re.DOTALL)
NEURONS = 64
"""Width of the MLP of the tiny model."""


def hunks(change: str) -> list[tuple[str, str, str]]:
    """Path, old text and new text of each hunk; a hunk ends where lines are added and other lines follow."""
    found: list[tuple[str, list[str], list[str]]] = []
    path, adding = "", True
    for line in change.splitlines():
        if line.startswith("# stratalens/"):
            path, adding = line[2:], True
            continue
        mark, text = line[:1], line[1:]
        if adding and (mark != "+" or not found or found[-1][0] != path):
            found.append((path, [], []))
        adding = mark == "+"
        for kept, marks in zip(found[-1][1:], (" -", " +"), strict=True):
            kept += [text] if mark in marks else []
    return [(where, "\n".join(old), "\n".join(new)) for where, old, new in found]


def make(change: str, root: Path) -> None:
    for name, old, new in hunks(change):
        path = root / name
        if not old:
            path.write_text(new + "\n")
            continue
        content = path.read_text()
        assert content.count(old) == 1, (name, old)
        path.write_text(content.replace(old, new))


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A folder with the changed package."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(REPOSITORY / "stratalens", root / "stratalens", ignore=shutil.ignore_patterns("__pycache__"))
    for change in CHANGES:
        make(change, root)
    return root


def run(extended: Path, *words: str) -> str:
    """What a program says that has the changed package."""
    environment = os.environ | {"PYTHONPATH": str(extended), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, cwd=extended)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_change_is_short():
    assert len(CHANGES) == 5
    for change in CHANGES:
        assert sum(line.startswith("+") for line in change.splitlines()) < MAX_LINES


@pytest.mark.real
def test_format_site_column_and_command_work_together(extended, arguments, tmp_path):
    random = np.random.default_rng(0)
    saes = tmp_path / "saes"
    saes.mkdir()
    for place, width in (("2", TINY_WIDTH), ("2_mlp_neurons", NEURONS)):
        w_enc = random.normal(size=(TINY_LATENTS, width)).astype(np.float32)
        b_enc, threshold = np.zeros(TINY_LATENTS, np.float32), np.full(TINY_LATENTS, 0.5, np.float32)
        w_dec, b_dec = w_enc / np.linalg.norm(w_enc, axis=1, keepdims=True), np.zeros(width, np.float32)
        np.savez(saes / f"layer_{place}.npz", w_enc=w_enc, b_enc=b_enc, w_dec=w_dec, b_dec=b_dec, threshold=threshold)
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    words = [word for word in arguments if word not in ("--sae_model", options["--sae_model"], "--output_dir", "")]
    more = (
        "--sae_model",
        str(saes),
        "--output_dir",
        str(tmp_path / "out"),
        "--sites",
        "resid",
        "mlp_neurons",
        "--quiet",
    )
    run(extended, "-m", "stratalens", "analyze", *words, *more)
    table = pd.read_csv(tmp_path / "out" / "consolidated_top_features_all_layers.csv")
    assert set(table["site"]) == {"resid", "mlp_neurons"}
    rates = table["financial_firing_rate"], table["general_firing_rate"]
    assert np.allclose(table["firing_share"], rates[0] / (rates[0] + rates[1]))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {sae["k"] for sae in record["saes"].values()} == {None}
    lines = run(extended, "-m", "stratalens", "best", str(tmp_path / "out")).splitlines()
    assert [line.split(":")[0] for line in lines] == ["2", "2_mlp_neurons"]


TOY_FAMILY = """
import torch
from torch import nn
from stratalens.hookpoint import Hookpoint
from stratalens.models.families import hookpoint_of
from stratalens.models.site_check import require_true_sites

class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.mixer, self.expander = nn.Linear(8, 8), nn.Linear(8, 8)
    def forward(self, x):
        x = x + self.mixer(x)
        return x + self.expander(x)

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.stages = nn.Embedding(20, 8), nn.ModuleList(Stage() for _ in range(3))
    def forward(self, input_ids, use_cache):
        x = self.embedding(input_ids)
        for stage in self.stages:
            x = stage(x)
        return x

torch.manual_seed(0)
toy = Toy()
require_true_sites(toy, [Hookpoint(1, "attn"), Hookpoint(1, "mlp")])
print(hookpoint_of(toy, "stages.2", "out"), hookpoint_of(toy, "stages.1.expander", "out"))
"""


@pytest.mark.real
def test_a_family_of_other_names_is_read(extended):
    assert run(extended, "-c", TOY_FAMILY) == "2 1_mlp\n"
