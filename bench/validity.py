"""Are the numbers of a result right? Features of known strength, planted in the document values of a real harvest.

    python bench/validity.py [--runs 2000] [--coverage_runs 200] [--first_run 0] [--workers 2] [--folder DIR]

Realised false discovery rate, power, coverage of the intervals of selected features, and bias with and without the
split, for every `--rank_by`; in brackets standard errors over runs. Ends with exit code 1 if a bound does not hold.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import tyro
from validity_numbers import INTERVALS, Measured, bias, coverage, false_discovery_rate, power
from validity_runs import Case, reported
from validity_samples import LATENTS_PER_PLANT, PLANTS, SETTINGS, HarvestValues, read_harvest

from stratalens.config.result_options import RANK_METRICS
from stratalens.ranking.rank import MAX_Q_VALUE

DOCUMENTS = (10, 20, 40, 75, 200)
"""Of each side in each half; with fewer than 10 a run holds nothing back."""
LONG = (("shuffled", 20), ("shuffled", 40), ("shuffled", 75), ("planted", 75))
"""Settings and documents with which the false discovery rate is measured over `runs` runs."""
MIN_COVERED_DOCUMENTS = 75
"""The bounds hold from so many documents of a side in the half that confirms; what it is below that is printed."""
KINDS_FROM = 75
"""Fewer documents leave too few of each kind."""
COVERAGE = (0.93, 0.97)
MAX_BIAS = 0.01
"""Of AUROC, with the split."""
RUNS_PER_JOB = 50


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    runs: int = 2000
    """Runs for the false discovery rate."""
    coverage_runs: int = 200
    """Runs of every other kind."""
    latents: int = 200
    """Latents of a run, drawn from one layer."""
    top_n: int = 30
    """Features selected in a run."""
    first_run: int = 0
    """Number of the first run; runs of other numbers are other documents, latents and plants."""
    workers: int = 2
    folder: Path | None = None
    """Where the harvest goes, to be used again. Default: a temporary folder."""


class Bounds:
    """What must hold, and whether it did."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            self.broken.append(text)


def measure(values: HarvestValues, options: Options, bounds: Bounds) -> Iterator[str]:
    """Run all cases; yields the tables as text."""
    with ProcessPoolExecutor(options.workers, get_context("spawn"), _hold, (values,)) as pool:
        for case, runs in cases(options):
            own = range(options.first_run, options.first_run + runs)
            jobs = [(case, own[start : start + RUNS_PER_JOB], True) for start in range(0, runs, RUNS_PER_JOB)]
            features = pd.concat(pool.map(_work, jobs), ignore_index=True)
            columns = {name: numbers(case, features.query("rank_by == @name")) for name in RANK_METRICS}
            check(case, columns, bounds)
            yield f"\n{case.setting}, {case.documents} documents a side in each half, {runs} runs"
            yield pd.DataFrame(columns).map(str).to_string()
        case = Case("shuffled", MIN_COVERED_DOCUMENTS, options.latents, options.top_n)
        own = range(options.first_run, options.first_run + min(options.coverage_runs, RUNS_PER_JOB))
        features = pool.submit(_work, (case, own, False)).result()
        broken = {name: numbers(case, own) for name, own in features.groupby("rank_by")}
        noticed = min(found["AUROC bias"].value for found in broken.values()) > MAX_BIAS
        bounds.require(noticed, "that the documents that selected also estimate goes unnoticed")
        yield "\nshuffled, broken on purpose: the documents that selected also estimate"
        yield pd.DataFrame(broken).map(str).to_string()


def cases(options: Options) -> Iterator[tuple[Case, int]]:
    """All kinds of runs, and how many of each."""
    for setting in SETTINGS:
        for documents in DOCUMENTS:
            if setting == "real, by kind" and documents < KINDS_FROM:
                continue
            runs = options.runs if (setting, documents) in LONG else options.coverage_runs
            yield Case(setting, documents, options.latents, options.top_n), runs


def numbers(case: Case, features: pd.DataFrame) -> dict[str, Measured]:
    """Everything that is measured of the features of one order."""
    found = {}
    if case.setting in ("shuffled", "planted"):
        found["FDR"] = false_discovery_rate(features)
    for name in INTERVALS:
        found[f"{name} covered"] = coverage(features, name)
    found["AUROC bias"] = bias(features, "auroc")
    found["of rank 1"] = bias(features.query("rank == 1"), "auroc")
    found["without split"] = bias(features, "auroc", split=False)
    if case.setting == "planted":
        found |= {plant: power(features, plant, LATENTS_PER_PLANT) for plant in PLANTS}
    return found


def check(case: Case, columns: Mapping[str, Mapping[str, Measured]], bounds: Bounds) -> None:
    """Compare the numbers of each order with what must hold from `MIN_COVERED_DOCUMENTS` on."""
    if case.documents < MIN_COVERED_DOCUMENTS:
        return
    for order, found in columns.items():
        name = f"{case.setting}, {case.documents} a side, by {order}"
        if (rate := found.get("FDR")) is not None:
            bounds.require(rate.value <= MAX_Q_VALUE + 2 * rate.error, f"{name}: false discovery rate {rate}")
        for interval in INTERVALS:
            covered = found[f"{interval} covered"]
            bounds.require(COVERAGE[0] <= covered.value <= COVERAGE[1], f"{name}: {interval} covered {covered}")
        bounds.require(abs(found["AUROC bias"].value) <= MAX_BIAS, f"{name}: bias {found['AUROC bias']}")


_held: list[HarvestValues] = []
"""The values, in a process that works."""


def _hold(values: HarvestValues) -> None:
    _held.append(values)


def _work(job: tuple[Case, Sequence[int], bool]) -> pd.DataFrame:
    case, runs, split = job
    return reported(_held[0], case, runs, split=split)


def main(options: Options) -> int:
    """Measure, print the tables, and say what does not hold."""
    with TemporaryDirectory() as temporary:
        values = read_harvest(options.folder or Path(temporary))
    bounds = Bounds()
    for text in measure(values, options, bounds):
        print(text, flush=True)
    print("\n" + "\n".join(["NO " + text for text in bounds.broken] or ["ok all bounds hold"]))
    return int(bool(bounds.broken))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
