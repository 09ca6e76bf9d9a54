"""A run that is killed at any moment goes on where it was and ends in the same bytes as one that was left alone."""

import random
import time
from pathlib import Path

import pytest
from killing import contents, run, run_and_kill


@pytest.fixture(scope="module")
def uninterrupted(embedded_model, tmp_path_factory) -> tuple[Path, float]:
    """A finished run, and the seconds it took."""
    output = tmp_path_factory.mktemp("uninterrupted") / "out"
    return output, run(output)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_run_killed_at_a_random_moment_and_started_again_ends_as_one_that_was_left_alone(
    uninterrupted, tmp_path, part
):
    finished, seconds = uninterrupted
    seed = time.time_ns()
    moment = seconds * (part + random.Random(seed).random()) / 3  # one in each third, so that all stages are met
    print(f"seed {seed}: killed after {moment:.2f} of {seconds:.2f} s")
    output = tmp_path / "out"
    killed = run_and_kill(output, moment)
    assert killed or (output / "run.json").is_file()
    run(output)
    assert contents(output) == contents(finished)
    assert not [path.name for path in output.iterdir() if path.name.startswith(".")], "nothing unfinished is left"
