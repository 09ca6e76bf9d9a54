"""Quality of the complete analysis of the embedded model, compared with the minimum that it should reach.

python bench/quality.py [--result DIR]
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import tyro


@dataclass(frozen=True)
class Options:
    """Which result to check."""

    result: Path | None = None
    """A finished result of `stratalens analyze` of the embedded model. Default: a new run."""


@dataclass(frozen=True)
class Requirement:
    """A number of the result and the bound that it must meet."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        low = float("-inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= self.value <= high

    def __str__(self) -> str:
        bound = f"at least {self.at_least:g}" if self.at_most is None else f"at most {self.at_most:g}"
        return f"{'ok' if self.holds else 'NO'} {self.name}: {self.value:.3f}, {bound}"


def requirements(result: Path) -> list[Requirement]:
    """Compute the required numbers of a finished result."""
    layers = pd.read_csv(result / "layer_comparison_report.csv")
    features = pd.read_parquet(result / "features.parquet")
    checks = json.loads((result / "run.json").read_text())["self_check"]
    scored = features.dropna(subset=["detection_auroc", "control_auroc"])
    above_control = float((scored["detection_auroc"] - scored["control_auroc"]).to_numpy().mean())
    return [
        Requirement(
            "confirmed features of the layer with fewest", float(layers["confirmed_features"].to_numpy().min()), 20
        ),
        Requirement("mean AUROC of the layer with the lowest", float(layers["avg_auroc"].to_numpy().min()), 0.7),
        Requirement(
            "FVU of the SAE that fits worst", max(check["own"]["fvu"] for check in checks.values()), at_most=0.45
        ),
        Requirement("features labelled as unclear", features["label"].tolist().count("Unclear"), at_most=25),
        Requirement("different labels", len(set(features["label"])), 50),
        Requirement("labels with a score", len(scored), 115),
        Requirement("detection AUROC above that of another feature's label", above_control, 0.12),
    ]


def main(options: Options) -> int:
    with TemporaryDirectory() as name:
        result = options.result or Path(name) / "results"
        if options.result is None:
            command = [sys.executable, "-m", "stratalens", "analyze", "--quiet", "--output_dir", str(result)]
            subprocess.run(command, check=True)
        checked = requirements(result)
    print("\n".join(map(str, checked)))
    return int(not all(requirement.holds for requirement in checked))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
