"""Time of a whole run by stage, from the command to the report, against the bare forward pass of its text.

The bare pass is timed before and after the run, on the same batches, with the model cut after the deepest layer.

python bench/run.py [--documents 90 0] [--repetitions 1]
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
import tyro
from torch import nn

from stratalens.config.options import RunConfig
from stratalens.config.validation import make_config
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.chunks import chunks
from stratalens.harvest.inputs import RunInputs, find_inputs
from stratalens.harvest.shards import cut_shards, shard_characters
from stratalens.models import load_model
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.hooks import drop_blocks_above, forward
from stratalens.models.loading import Placement, choose_device, choose_dtype
from stratalens.progress import NoProgress

ALLOWED = {36_000: 1.9, 200_000: 1.5, 400_000: 1.3}
"""Tokens of the text -> how many times the bare pass a run may take; larger texts as the largest."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    documents: tuple[int, ...] = (90, 0)
    """Values of --max_documents of the runs on the built-in texts; 0 for all documents."""
    repetitions: int = 1
    """Runs of each size."""


def bare_batches(config: RunConfig, inputs: RunInputs, device: torch.device) -> list[TokenBatch]:
    """The batches of a run."""
    survey = inputs.survey
    shards = cut_shards(survey.select(inputs.corpus), shard_characters(survey.characters), len(survey.populations))
    return [
        batch.to(device)
        for shard in shards
        for chunk in chunks(shard, inputs.cutter)
        for batch in pack_batches(chunk.sequences, config.tokens_per_batch, inputs.cutter.special_ids)
    ]


def bare_seconds(model: nn.Module, batches: list[TokenBatch]) -> float:
    """Time of the forward pass alone."""
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            forward(model, batch.input_ids)
    return time.perf_counter() - started


def run_seconds(documents: int, output: Path) -> tuple[float, dict[str, float]]:
    """Time of the command, and of its stages."""
    command = [sys.executable, "-m", "stratalens", "analyze", "--quiet", "--output_dir", str(output)]
    if documents:
        command += ["--max_documents", str(documents)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, json.loads((output / "run.json").read_text())["seconds"]


def measure(documents: int, repetitions: int) -> None:
    """Time the bare pass and the runs of one size in turn, and print their ratio."""
    device = choose_device()
    config = with_batch_tokens(make_config(**({"max_documents": documents} if documents else {})))
    inputs = find_inputs(config, NoProgress())
    deepest = max(inputs.saes).block
    placement = Placement(device, choose_dtype("auto", device))
    model = load_model(inputs.source.location, blocks=deepest + 1, placement=placement)
    drop_blocks_above(model, deepest)
    batches = bare_batches(config, inputs, device)
    tokens = sum(batch.tokens for batch in batches)
    bare_seconds(model, batches[:2])  # warm
    bare, runs, stages = [bare_seconds(model, batches)], [], {}
    for _ in range(repetitions):
        with TemporaryDirectory() as folder:
            seconds, stages = run_seconds(documents, Path(folder) / "out")
        runs.append(seconds)
        bare.append(bare_seconds(model, batches))
    allowed = next((share for size, share in ALLOWED.items() if tokens <= 1.1 * size), ALLOWED[max(ALLOWED)])
    print(
        f"{tokens:,} tokens: bare pass {mean(bare):.1f} s ({min(bare):.1f} to {max(bare):.1f}), "
        f"run {mean(runs):.1f} s: {mean(runs) / mean(bare):.2f} times; allowed {allowed}"
    )
    print("  " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items()), flush=True)


def main(options: Options) -> None:
    for documents in options.documents:
        measure(documents, options.repetitions)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
