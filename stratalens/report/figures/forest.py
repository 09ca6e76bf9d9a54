"""Rows of features: number, label, and estimates with their intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from stratalens.report.figures.drawing import (
    DRAWABLE,
    GREY,
    TEXT_SIZE,
    Range,
    fitted,
    is_confirmed,
    numbers,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.07
"""Inches between number and label."""
BASELINE = 0.035
"""Inches from the middle of a row down to where its letters stand."""


class Estimates(NamedTuple):
    """A measure of each row and the ends of its 95% interval."""

    value: Float[np.ndarray, " row"]
    low: Float[np.ndarray, " row"]
    high: Float[np.ndarray, " row"]


def shares(rows: pd.DataFrame) -> Estimates:
    """Specialization in percent of the norm of the residual stream."""
    columns = ("normalised_specialization", "normalised_low", "normalised_high")
    return Estimates(*(numbers(rows[name], 100.0) for name in columns))


def areas(rows: pd.DataFrame) -> Estimates:
    """Areas under the ROC curve."""
    return Estimates(*(numbers(rows[name]) for name in ("auroc", "auroc_low", "auroc_high")))


def set_rows(axes: "Axes", count: int) -> None:
    """One row a feature, the first on top, without ticks: names stand beside."""
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks([])


def draw_estimates(axes: "Axes", rows: pd.DataFrame, estimates: Estimates, colours: Sequence[Any]) -> None:
    """A marker and its interval a row, filled where confirmed; limits and scale of the axis must be set.

    An interval that goes on beyond the axis ends in an arrow.
    """
    left, right = axes.get_xlim()
    rails = np.arange(len(rows))
    inside = np.abs(estimates.value) < DRAWABLE
    low, high = (np.where(inside, ends, np.nan) for ends in (estimates.low, estimates.high))
    axes.hlines(rails, low.clip(left, right), high.clip(left, right), color=list(colours), linewidth=1.2, zorder=2)
    for beyond, edge, arrow in ((low < left, left, "<"), (high > right, right, ">")):
        for rail in np.flatnonzero(beyond):
            axes.plot(edge, rail, arrow, color=colours[rail], markersize=3.5, clip_on=False)
    faces = [colour if filled else "white" for colour, filled in zip(colours, is_confirmed(rows), strict=True)]
    axes.scatter(estimates.value, rails, s=13, facecolors=faces, edgecolors=list(colours), linewidth=0.8, zorder=3)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "center", "color": GREY, "bbox": box}
    for rail in np.flatnonzero(~inside):
        axes.annotate("no estimate", (0.97, rail), fontsize=TEXT_SIZE, **place)


def draw_names(axes: "Axes", rows: pd.DataFrame, keys: Sequence[str], left: float, right: float) -> None:
    """Numbers, right-aligned, and labels, left-aligned, in the rows of the axes.

    Each is a text of its own: a label in a script that runs from right to left must not move the number. No label
    leaves its place, however tall its accents are.

    Args:
        axes: whose rows they name.
        rows: the features, with their labels.
        keys: what identifies each, the number of the latent for one.
        left: inches from the left edge of the figure where the numbers may begin.
        right: inches where labels must end.
    """
    from matplotlib.transforms import Bbox, ScaledTranslation, TransformedBbox, blended_transform_factory

    figure = axes.get_figure(root=True)
    assert figure is not None
    place = blended_transform_factory(figure.dpi_scale_trans, axes.transData)
    baseline = place + ScaledTranslation(0, -BASELINE, figure.dpi_scale_trans)
    style = {"fontsize": TEXT_SIZE, "transform": baseline, "va": "baseline"}
    middle = left + 0.062 * max(map(len, keys), default=0)
    labels = rows["label"] if "label" in rows else [""] * len(rows)
    for rail, (key, label) in enumerate(zip(keys, labels, strict=True)):
        box = TransformedBbox(Bbox([[0, rail - 0.5], [right, rail + 0.5]]), place)
        text = fitted(figure, plain(label), right - middle - GAP)
        axes.text(middle, rail, key, ha="right", color=GREY, **style)
        shown = axes.text(middle + GAP, rail, text, ha="left", parse_math=False, **style)
        shown.set_clip_box(box)
        shown.set_clip_on(True)


def area_range(estimates: Estimates) -> Range:
    """An axis of AUROC that holds all values and chance, within 0 and 1."""
    values = np.concatenate([[0.5], *estimates])
    values = values[np.isfinite(values)].clip(0, 1)
    if len(values) == 1:
        return Range(-0.02, 1.02, "linear")
    low, high = values.min(), values.max()
    margin = max(0.04 * (high - low), 0.02)
    return Range(float(max(low - margin, -0.02)), float(min(high + margin, 1.02)), "linear")
