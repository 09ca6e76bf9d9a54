"""Real runs of the command line that are killed after some time and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

OPTIONS = ("--layers", "4", "--max_documents", "90", "--quiet")
"""The embedded model cut after block 4: a run of several shards that takes seconds."""


def command(output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "stratalens", "analyze", *OPTIONS, "--output_dir", str(output), *more]


def run(output: Path, *more: str) -> float:
    """Run to the end; returns the seconds it took."""
    started = time.perf_counter()
    subprocess.run(command(output, *more), check=True)
    return time.perf_counter() - started


def run_and_kill(output: Path, seconds: float, number: signal.Signals = signal.SIGKILL) -> bool:
    """Start a run and send it a signal after some seconds; returns whether it was still running then."""
    process = subprocess.Popen(command(output), start_new_session=True)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, number)
        process.wait(60)
        return True


def contents(output: Path) -> dict[str, bytes]:
    """Name -> content of every file of a result except its record, which contains times."""
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}
