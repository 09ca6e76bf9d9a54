"""Forest plots, one feature per row: number, label, and an estimate with its interval."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from stratalens.report.figures.drawing import (
    GREY,
    MAX_DRAWABLE,
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
"""Inches from the middle of a row down to the baseline of its text."""


class Estimates(NamedTuple):
    """A measure of each row and the limits of its 95% interval."""

    value: Float[np.ndarray, " row"]
    low: Float[np.ndarray, " row"]
    high: Float[np.ndarray, " row"]


def shares(rows: pd.DataFrame) -> Estimates:
    """Specialization in percent of the mean norm at the hookpoint, with its interval."""
    columns = ("normalised_specialization", "normalised_low", "normalised_high")
    return Estimates(*(numbers(rows[name], 100.0) for name in columns))


def areas(rows: pd.DataFrame) -> Estimates:
    """Areas under the ROC curve, with their intervals."""
    return Estimates(*(numbers(rows[name]) for name in ("auroc", "auroc_low", "auroc_high")))


def set_rows(axes: "Axes", count: int) -> None:
    """Set up `count` rows, one per feature and the first on top, without ticks: `draw_names` writes the names."""
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks([])


def draw_estimates(axes: "Axes", rows: pd.DataFrame, estimates: Estimates, colours: Sequence[Any]) -> None:
    """Draw a marker and its interval in each row, filled if confirmed; limits and scale of the axis must be set.

    An interval that extends beyond the axis ends in an arrow.
    """
    left, right = axes.get_xlim()
    row_numbers = np.arange(len(rows))
    inside = np.abs(estimates.value) < MAX_DRAWABLE
    low, high = (np.where(inside, ends, np.nan) for ends in (estimates.low, estimates.high))
    axes.hlines(
        row_numbers, low.clip(left, right), high.clip(left, right), color=list(colours), linewidth=1.2, zorder=2
    )
    for beyond, edge, arrow in ((low < left, left, "<"), (high > right, right, ">")):
        for row in np.flatnonzero(beyond):
            axes.plot(edge, row, arrow, color=colours[row], markersize=3.5, clip_on=False)
    faces = [colour if filled else "white" for colour, filled in zip(colours, is_confirmed(rows), strict=True)]
    axes.scatter(
        estimates.value, row_numbers, s=13, facecolors=faces, edgecolors=list(colours), linewidth=0.8, zorder=3
    )
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    style = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "center", "color": GREY, "bbox": box}
    for row in np.flatnonzero(~inside):
        axes.annotate("no estimate", (0.97, row), fontsize=TEXT_SIZE, **style)


def draw_names(axes: "Axes", rows: pd.DataFrame, keys: Sequence[str], left: float, right: float) -> None:
    """Draw right-aligned keys and left-aligned labels beside the rows of the axes.

    Key and label are separate texts, so that a label in a right-to-left script cannot move the key. A label is clipped
    to its row, however tall its accents are.

    Args:
        axes: the axes whose rows are named.
        rows: the features, with their labels.
        keys: the text that identifies each feature, such as the number of the latent.
        left: inches from the left edge of the figure where the keys may begin.
        right: inches from that edge where labels must end.
    """
    from matplotlib.transforms import Bbox, ScaledTranslation, TransformedBbox, blended_transform_factory

    figure = axes.get_figure(root=True)
    assert figure is not None
    row_transform = blended_transform_factory(figure.dpi_scale_trans, axes.transData)
    baseline = row_transform + ScaledTranslation(0, -BASELINE, figure.dpi_scale_trans)
    style = {"fontsize": TEXT_SIZE, "transform": baseline, "va": "baseline"}
    keys_end = left + 0.062 * max(map(len, keys), default=0)
    labels = rows["label"] if "label" in rows else [""] * len(rows)
    for row, (key, label) in enumerate(zip(keys, labels, strict=True)):
        box = TransformedBbox(Bbox([[0, row - 0.5], [right, row + 0.5]]), row_transform)
        text = fitted(figure, plain(label), right - keys_end - GAP)
        axes.text(keys_end, row, key, ha="right", color=GREY, **style)
        label_text = axes.text(keys_end + GAP, row, text, ha="left", parse_math=False, **style)
        label_text.set_clip_box(box)
        label_text.set_clip_on(True)


def area_range(estimates: Estimates) -> Range:
    """The range of an axis of AUROC: all values and chance (0.5), within 0 and 1."""
    values = np.concatenate([[0.5], *estimates])
    values = values[np.isfinite(values)].clip(0, 1)
    if len(values) == 1:
        return Range(-0.02, 1.02, "linear")
    low, high = values.min(), values.max()
    margin = max(0.04 * (high - low), 0.02)
    return Range(float(max(low - margin, -0.02)), float(min(high + margin, 1.02)), "linear")
