"""A run that is killed at any moment continues where it was, and gives the same bytes as an uninterrupted run."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from killing import command, contents, run, run_and_kill

pytestmark = [pytest.mark.real, pytest.mark.serial]


@pytest.fixture(scope="module")
def uninterrupted(embedded_model, tmp_path_factory) -> tuple[Path, float]:
    """A finished run, and the seconds it took."""
    output = tmp_path_factory.mktemp("uninterrupted") / "out"
    return output, run(output)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_run_killed_at_a_random_moment_and_started_again_gives_the_same_result(uninterrupted, tmp_path, part):
    finished, seconds = uninterrupted
    seed = time.time_ns()
    moment = seconds * (part + random.Random(seed).random()) / 3  # one in each third, so that all stages are covered
    output = tmp_path / "out"
    while not run_and_kill(output, moment) or (output / "run.json").exists():  # done by then: try an earlier moment
        shutil.rmtree(output)
        moment *= 0.8
    print(f"seed {seed}: killed after {moment:.2f} of {seconds:.2f} s")
    run(output)
    assert contents(output) == contents(finished)
    assert not [path.name for path in output.iterdir() if path.name.startswith(".")], "nothing unfinished is left"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_ctrl_c_ends_a_run_within_two_seconds_with_one_line_that_says_how_to_continue(uninterrupted, tmp_path, part):
    _, seconds = uninterrupted
    seed = time.time_ns()
    moment = 1 + seconds * (part + random.Random(seed).random()) / 4
    while (found := interrupted_after(moment, tmp_path / "out")) is None:  # this run was faster than that one
        shutil.rmtree(tmp_path / "out")
        moment *= 0.8
    print(f"seed {seed}: interrupted after {moment:.2f} of {seconds:.2f} s")
    code, printed, took = found
    assert took < 2
    assert code == 130
    assert printed.splitlines() == [
        "Interrupted; run the same command again to continue with what was read and labelled so far"
    ]


def interrupted_after(seconds: float, output: Path) -> tuple[int, str, float] | None:
    """Exit code of a run that is interrupted, what it printed, and the seconds it still took; None if it was done."""
    process = subprocess.Popen(command(output), stderr=subprocess.PIPE, text=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    else:
        return None
    sent = time.perf_counter()
    _, printed = process.communicate(timeout=60)
    took = time.perf_counter() - sent
    return None if (output / "run.json").exists() else (process.returncode, printed, took)
