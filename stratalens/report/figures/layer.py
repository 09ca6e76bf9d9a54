"""The figure of a layer: its reported features, with their specialization and their AUROC."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from stratalens.errors import counted
from stratalens.hookpoint import Hookpoint
from stratalens.report.figures.drawing import (
    GREY,
    TEXT_SIZE,
    TITLE_SIZE,
    WIDTH,
    Box,
    axes_at,
    new_figure,
    save,
    set_share_range,
    share_range,
    short_domain,
    was_tested,
)
from stratalens.report.figures.forest import (
    area_range,
    areas,
    draw_estimates,
    draw_names,
    set_rows,
    shares,
)
from stratalens.report.tables import norm_owner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_FEATURES = 30
ROW, TOP, BOTTOM, MARGIN = 0.165, 0.78, 0.5, 0.08
"""Inches: height of a row, space above and below the rows, space at the sides."""
NAMES_END, SHARES, AREAS = 3.28, (3.38, 1.85), (5.38, 1.5)
"""Inches: where labels end, and left edge and width of the two panels."""
BLUE, VERMILION = "#0072b2", "#d55e00"
"""From the palette of Okabe and Ito, which colour-blind readers can distinguish."""
HELD_OUT = (
    "Estimated on documents not used to select the features; bars are 95% intervals, where wider than the marker.\n"
    "Filled: confirmed (both halves agree in sign, q < 0.05, AUROC interval above 0.5). Hollow: not confirmed."
)
NOT_HELD_OUT = (
    "Too few documents to hold any out: estimates use those that selected the features, and so are too high.\n"
    "Bars are 95% intervals, where wider than the marker. Hollow: none could be confirmed."
)


def write_layer_figure(hookpoint: Hookpoint, features: pd.DataFrame, domain: str, stem: Path) -> None:
    """Write the figure of one layer as `<stem>.png` and `<stem>.svg`.

    Args:
        hookpoint: of the features.
        features: its reported features, with `rank`; the first `MAX_FEATURES` are shown.
        domain: name of the domain.
        stem: path of the files without their suffixes.
    """
    rows = features.sort_values("rank", kind="stable").head(MAX_FEATURES).reset_index(drop=True)
    title = layer_title(hookpoint, features, domain)
    figure = new_figure(TOP + BOTTOM + ROW * max(len(rows), 1))
    height = figure.get_size_inches()[1]
    figure.text(MARGIN / WIDTH, 1 - 0.08 / height, title, fontsize=TITLE_SIZE, fontweight="bold", va="top")
    if len(rows):
        note = HELD_OUT if was_tested(rows) else NOT_HELD_OUT
        figure.text(MARGIN / WIDTH, 1 - 0.27 / height, note, va="top", color=GREY, linespacing=1.25)
        _draw_rows(figure, rows, norm_owner([hookpoint]))
    save(figure, stem, title)


def layer_title(hookpoint: Hookpoint, features: pd.DataFrame, domain: str) -> str:
    """The title of the figure, with the number of confirmed features."""
    name, count = short_domain(domain), len(features)
    if not count:
        return f"Layer {hookpoint}: no {name} features reported"
    if was_tested(features):
        title = (
            f"Layer {hookpoint}: {int(features['confirmed'].sum())} of {counted(count, f'{name} feature')} confirmed"
        )
    else:
        title = f"Layer {hookpoint}: {counted(count, f'{name} feature')}, without confirmation"
    return title if count <= MAX_FEATURES else f"{title}; the first {MAX_FEATURES} are shown"


def _draw_rows(figure: "Figure", rows: pd.DataFrame, owner: str) -> None:
    height = ROW * len(rows)
    _stripes(axes_at(figure, Box(MARGIN, BOTTOM, WIDTH - 2 * MARGIN, height)), len(rows))
    specialization = axes_at(figure, Box(SHARES[0], BOTTOM, SHARES[1], height))
    separation = axes_at(figure, Box(AREAS[0], BOTTOM, AREAS[1], height))
    colours = [BLUE] * len(rows)
    keys = [str(number) for number in rows["feature_number"]]
    for axes in (specialization, separation):
        set_rows(axes, len(rows))
        axes.patch.set_visible(False)
    _draw_shares(specialization, rows, colours, owner)
    estimates = areas(rows)
    separation.set_xlim(*area_range(estimates)[:2])
    separation.axvline(0.5, color=VERMILION, linestyle=(0, (4, 2)), linewidth=0.9)
    style = {"xycoords": ("data", "axes fraction"), "xytext": (0, 2), "textcoords": "offset points"}
    separation.annotate("chance", (0.5, 1), ha="center", va="bottom", color=VERMILION, fontsize=TEXT_SIZE, **style)
    draw_estimates(separation, rows, estimates, colours)
    separation.set_xlabel("AUROC\n(telling documents apart)")
    draw_names(specialization, rows, keys, MARGIN, NAMES_END)
    style = {"va": "bottom", "color": GREY, "transform": figure.dpi_scale_trans}
    figure.text(MARGIN, BOTTOM + height + 0.03, "feature and label", **style)


def _draw_shares(axes: "Axes", rows: pd.DataFrame, colours: list[str], owner: str) -> None:
    estimates = shares(rows)
    scale = set_share_range(axes, "x", share_range(*estimates))
    draw_estimates(axes, rows, estimates, colours)
    axes.set_xlabel(f"specialization\n(% of {owner} norm" + (f", {scale})" if scale else ")"))


def _stripes(axes: "Axes", count: int) -> None:
    """Shade every other row across the figure, so that rows are easy to follow."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1))
    set_rows(axes, count)
    for row in range(0, count, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="0.955", linewidth=0)
