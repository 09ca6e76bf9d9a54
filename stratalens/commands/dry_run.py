"""Describe what a run would do and estimate its memory, disk space and time, without loading the model's weights."""

import time
from itertools import islice

import torch

from stratalens.commands.listed import listed_features
from stratalens.config.options import RunConfig
from stratalens.corpus.sense_pairs import load_sense_pairs
from stratalens.errors import counted
from stratalens.files.locations import user_path
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.disk_plan import estimate_disk
from stratalens.harvest.inputs import RunInputs, find_inputs
from stratalens.harvest.memory_plan import count_parameters, estimate_memory
from stratalens.harvest.open_model import describe_model
from stratalens.models.limits import require_known_ids
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.progress import Progress
from stratalens.validation.token_test import expected_tokens

MAX_SAMPLED_ROWS = 500
"""Rows that are tokenized to estimate the number of tokens of the whole text."""
SUSTAINED_SHARE = 0.5
"""Share of the speed of one large matrix product that a forward pass sustains."""
MATRIX_ROUNDS = 5
MATRIX_SIDES = {"cuda": 8192, "mps": 4096, "cpu": 1024}
"""Type of device -> side of the square matrices whose product is timed: a GPU takes longer to start a small product
than to make it."""


def dry_run(config: RunConfig, progress: Progress) -> list[str]:
    """Return lines that say what would run and how much memory, disk space and time it would take.

    The estimate of time is 2 x parameters x tokens operations, at half the speed of a large matrix product that is
    measured on this machine: in the type of the model for its blocks, in float32 for the encoders of the SAEs.

    Raises:
        StratalensError: the input is not usable.
    """
    config = with_batch_tokens(config)
    listed = listed_features(config)
    load_sense_pairs(config.domain, config.senses)
    inputs = find_inputs(config, progress, listed)
    require_known_ids(inputs.source, inputs.cutter)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    parameters, _ = count_parameters(inputs, max(inputs.saes).block + 1)
    tokens = count_tokens(inputs) * (2 if config.controls == "full" else 1)
    encoders = sum(sae.d_model * sae.num_latents for sae in inputs.saes.values())
    speed = SUSTAINED_SHARE * matrix_speed(device, dtype)
    encoder_speed = speed if dtype == torch.float32 else SUSTAINED_SHARE * matrix_speed(device, torch.float32)
    seconds = 2 * tokens * (parameters / speed + encoders / encoder_speed)
    features = sum(map(len, listed.values())) if listed is not None else config.top_n * len(inputs.saes)
    test = f"; about {counted(expected_tokens(features), 'token')} more for the token test" if config.token_test else ""
    return [
        describe_model(inputs.source, inputs.saes, device, dtype),
        f"Results would go to {config.output_dir}",
        f"About {counted(tokens, 'token')} through {parameters / 1e6:,.0f} million parameters and "
        f"{encoders / 1e6:,.1f} million of encoders{test}",
        estimate_memory(config, inputs, device, dtype).describe(),
        estimate_disk(inputs, tokens, config.keep_bytes).describe(user_path(config.output_dir)),
        f"About {_duration(seconds)} of reading at {speed / 1e12:.2f} TFLOP/s",
        "Dry run: nothing was analysed or written",
    ]


def count_tokens(inputs: RunInputs) -> int:
    """Estimate the tokens of all rows that are kept, from the first `MAX_SAMPLED_ROWS` of them."""
    lengths = [
        sum(len(inputs.cutter.sequence(span)) for span in inputs.cutter.spans(row.text))
        for row in islice(inputs.survey.select(inputs.corpus), MAX_SAMPLED_ROWS)
    ]
    return round(sum(lengths) / max(1, len(lengths)) * inputs.survey.kept_rows)


def matrix_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of a product of two large square matrices, the best of some rounds."""
    side = MATRIX_SIDES[device.type]
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(MATRIX_ROUNDS):
        _wait_for(device)
        started = time.perf_counter()
        _ = a @ a
        _wait_for(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def _wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; the CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
