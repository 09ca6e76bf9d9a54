"""Kill real runs at random moments, start them again and compare every file with an uninterrupted run.

python bench/kill.py [--runs 20]
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from killing import contents, run, run_and_kill  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Options:
    """How often to kill."""

    runs: int = 20
    """Runs that are killed and started again."""
    kills: int = 2
    """Times that each run is killed before it may finish."""
    seed: int = 0


def main(options: Options) -> None:
    generator = random.Random(options.seed)
    with TemporaryDirectory() as name:
        uninterrupted = Path(name) / "uninterrupted"
        seconds = run(uninterrupted)
        expected = contents(uninterrupted)
        print(f"uninterrupted: {seconds:.1f} s, {len(expected)} files")
        same = killed = 0
        for number in range(options.runs):
            output = Path(name) / str(number)
            moments = [generator.uniform(0, seconds) for _ in range(options.kills)]
            killed += sum(run_and_kill(output, moment) for moment in moments)
            seconds_to_finish = run(output)
            equal = contents(output) == expected
            same += equal
            moments_text = ", ".join(f"{moment:.1f}" for moment in moments)
            print(
                f"run {number}: stopped after {moments_text} s, then {seconds_to_finish:.1f} s; equal: {equal}",
                flush=True,
            )
    print(f"{killed} kills, {same} of {options.runs} runs ended in the same bytes")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
