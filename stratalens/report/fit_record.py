"""The fit check of an SAE as `run.json` and `check.json` record it."""

from dataclasses import asdict
from typing import Annotated

from pydantic import Field

from stratalens.report.record_part import RecordPart
from stratalens.saes.fit_check import FitCheck
from stratalens.saes.fit_numbers import HookpointFit


class FitRecord(RecordPart):
    """How well an SAE reconstructs the activations at one hookpoint."""

    hookpoint: str
    fvu: float | None
    mean_error_share: float | None
    l0: float | None
    explained_variance: float | None = None
    """None in results of earlier versions; so are the next ones."""
    place: str = ""
    """The hookpoint in words."""


class LatentUseRecord(RecordPart):
    """Which latents of an SAE fired in the fit check."""

    dead_share: float | None
    dense_share: float | None


class FitCheckRecord(RecordPart):
    """The fit check of an SAE at its own hookpoint and at others."""

    own: FitRecord
    neighbours: list[FitRecord]
    siblings: list[FitRecord] = Field(default_factory=list)
    """At other sites of the block, where a doubt made the run try them."""
    problem: str
    median_norm: Annotated[float, Field(ge=0)]
    declared_l0: float | None = None
    use: LatentUseRecord | None = None


def fit_record(check: FitCheck) -> dict[str, object]:
    """The numbers of a fit check, and its verdict."""
    return {
        "median_norm": check.median_norm,
        "own": hookpoint_record(check.own),
        "neighbours": [hookpoint_record(fit) for fit in check.neighbours],
        "siblings": [hookpoint_record(fit) for fit in check.siblings],
        "declared_l0": check.declared_l0,
        "use": None if check.use is None else asdict(check.use),
        "problem": check.problem,
    }


def hookpoint_record(fit: HookpointFit) -> dict[str, object]:
    """The numbers of the fit at one hookpoint."""
    return {**asdict(fit), "explained_variance": fit.explained_variance}
