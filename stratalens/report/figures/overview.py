"""The overview figure of a run. Layers are ordered, so their colours come from one perceptually uniform scale."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from stratalens.errors import counted
from stratalens.hookpoint import Hookpoint
from stratalens.report.figures.drawing import (
    GREY,
    MAX_DRAWABLE,
    TEXT_SIZE,
    TITLE_SIZE,
    WIDTH,
    Box,
    axes_at,
    is_confirmed,
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
from stratalens.report.tables import Tables, norm_owner, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_FOREST_FEATURES = 15
MAX_LAYER_TICKS = 12
MAX_LEGEND_LAYERS = 6
HEIGHT = 6.35
"""Inches."""
UPPER, LOWER = 3.72, 0.5
"""Inches from the lower edge to the two rows of panels."""
PANEL_HEIGHT, FOREST_HEIGHT = 2.0, 2.45
"""Inches: the upper panels, and the lower ones."""
LEFT, RIGHT, NAMES_END, MARGIN = 0.62, 4.35, 2.34, 0.08
"""Inches from the left edge to the two columns of panels, to where labels end, to where text begins."""
Colours = dict[str, tuple[float, ...]]
"""Name of a hookpoint -> RGBA."""


class Span(NamedTuple):
    """The smallest and the largest activation that panel B shows."""

    low: float
    high: float


def write_overview(tables: Tables, stem: Path) -> None:
    """Write the overview figure of a run as `<stem>.png` and `<stem>.svg`."""
    colours = _colours([str(hookpoint) for hookpoint in sorted(tables.features)])
    rows = tables.consolidated
    figure = new_figure(HEIGHT)
    _headline(figure, tables)
    _shares_by_layer(axes_at(figure, Box(LEFT, UPPER, 3.13, PANEL_HEIGHT)), rows, colours)
    _activations(axes_at(figure, Box(RIGHT, UPPER, WIDTH - 0.1 - RIGHT, PANEL_HEIGHT)), tables, colours)
    if len(rows):
        _forest(figure, rows, colours)
    _areas_by_layer(axes_at(figure, Box(RIGHT, LOWER, WIDTH - 0.1 - RIGHT, FOREST_HEIGHT)), rows, colours)
    save(figure, stem, f"{tables.domain} features by layer")


def _colours(hookpoints: list[str]) -> Colours:
    """Dark to light from the first hookpoint to the last, without the lightest, which are hard to see on paper."""
    import matplotlib

    scale = matplotlib.colormaps["viridis"]
    shades = np.linspace(0.08, 0.82, len(hookpoints))
    return {hookpoint: scale(at) for hookpoint, at in zip(hookpoints, shades, strict=True)}


def _headline(figure: "Figure", tables: Tables) -> None:
    rows, layers = tables.consolidated, len({hookpoint.block for hookpoint in tables.features})
    name = f"{short_domain(tables.domain)} feature"
    title = f"{counted(len(rows), name) if len(rows) else f'No {name}s'} in {counted(layers, 'layer')}"
    if was_tested(rows):
        title = f"{title}, {int(rows['confirmed'].sum())} confirmed"
        note = "Estimated on documents not used to select the features. Filled: confirmed; hollow: not confirmed."
    elif len(rows):
        note = "Too few documents to hold any out and confirm features (all hollow); estimates are too high."
    else:
        note = ""
    figure.text(MARGIN / WIDTH, 1 - 0.08 / HEIGHT, title, fontsize=TITLE_SIZE, fontweight="bold", va="top")
    figure.text(MARGIN / WIDTH, 1 - 0.26 / HEIGHT, note, va="top", color=GREY)


def _titled(axes: "Axes", title: str, left: float = LEFT - MARGIN) -> None:
    """Write the title of a panel, starting `left` inches left of its axes, where its tick labels begin."""
    axes.annotate(
        title,
        (0, 1),
        (-72 * left, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=TITLE_SIZE - 0.5,
        fontweight="bold",
    )


def _by_layer(axes: "Axes", rows: pd.DataFrame, values: Float[np.ndarray, " row"], colours: Colours) -> None:
    """Draw a dot per feature, filled if confirmed, and the median of each layer; the range of the axis must be set."""
    jitter = np.random.default_rng(0)
    confirmed = is_confirmed(rows)
    shown = np.abs(values) < MAX_DRAWABLE
    size = 11 if len(colours) <= MAX_LAYER_TICKS else 4
    place = np.array(places(rows))
    for position, (hookpoint, colour) in enumerate(colours.items()):
        own = shown & (place == hookpoint)
        across = position + jitter.uniform(-0.22, 0.22, len(rows))
        for mask, face in ((own & confirmed, [colour]), (own & ~confirmed, "none")):
            axes.scatter(
                across[mask], values[mask], s=size, facecolor=face, edgecolor=[colour], linewidth=0.7, zorder=2
            )
        if own.any():
            axes.hlines(
                np.median(values[own]), position - 0.36, position + 0.36, color="black", linewidth=1.2, zorder=3
            )
    hookpoints = list(colours)
    ticks = range(0, len(hookpoints), -(-len(hookpoints) // MAX_LAYER_TICKS) or 1)
    axes.set_xticks(ticks, [hookpoints[position] for position in ticks])
    middle, half = (len(hookpoints) - 1) / 2, max(len(hookpoints), 3) / 2 + 0.1
    axes.set(xlim=(middle - half, middle + half), xlabel="layer (bar: median)")
    axes.grid(axis="x", visible=False)


def _shares_by_layer(axes: "Axes", rows: pd.DataFrame, colours: Colours) -> None:
    values = shares(rows).value
    scale = set_share_range(axes, "y", share_range(values))
    _by_layer(axes, rows, values, colours)
    axes.set_ylabel(f"% of {norm_owner(map(Hookpoint.parse, colours))} norm" + (f"\n({scale})" if scale else ""))
    _titled(axes, "A  Specialization by layer")


def _areas_by_layer(axes: "Axes", rows: pd.DataFrame, colours: Colours) -> None:
    estimates = areas(rows)
    axes.set_ylim(*area_range(estimates._replace(low=estimates.value, high=estimates.value))[:2])
    axes.axhline(0.5, color=GREY, linestyle=(0, (4, 2)), linewidth=0.8)
    _by_layer(axes, rows, estimates.value, colours)
    style = {"xycoords": ("axes fraction", "data"), "xytext": (-2, 2), "textcoords": "offset points"}
    axes.annotate("chance", (1, 0.5), ha="right", va="bottom", color=GREY, fontsize=TEXT_SIZE, **style)
    axes.set_ylabel("AUROC")
    _titled(axes, "D  AUROC of single features by layer")


def _activations(axes: "Axes", tables: Tables, colours: Colours) -> None:
    """Draw domain against general activation, with all other live latents in grey behind the reported ones."""
    measures = ["general_activation", f"{tables.domain}_activation"]
    live = [table.loc[table["live"].astype(bool), measures] for table in tables.latents.values()]
    points = np.concatenate([np.empty((0, 2)), *(_points(table) for table in live)])
    span = _span(np.concatenate([points, _points(tables.consolidated[measures])]))
    points = points.clip(min=span.low)
    axes.scatter(*points.T, s=1.2, color="0.78", linewidth=0, rasterized=True)
    axes.scatter([], [], s=5, color="0.7", label="other latents")
    named = list(colours)[:: -(-len(colours) // MAX_LEGEND_LAYERS) or 1]
    for hookpoint, colour in colours.items():
        own = tables.features[Hookpoint.parse(hookpoint)]
        confirmed = is_confirmed(own)
        for mask, face in ((confirmed, [colour]), (~confirmed, "white")):
            across, up = _points(own.loc[mask, measures]).clip(min=span.low).T
            axes.scatter(across, up, s=11, facecolor=face, edgecolor=[colour], linewidth=0.7)
        if hookpoint in named:
            axes.scatter([], [], s=11, color=[colour], label=f"layer {hookpoint}")
    axes.plot(span, span, color=GREY, linestyle=(0, (4, 2)), linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlim=(span.low * 0.8, span.high), ylim=(span.low * 0.8, span.high))
    axes.set(xlabel="mean activation, general text", ylabel=f"mean activation, {short_domain(tables.domain)} text")
    axes.minorticks_off()
    axes.legend(loc="lower right", framealpha=0.9, handletextpad=0.1, borderpad=0.3, labelspacing=0.25)
    _titled(axes, "B  Activation on the two kinds of text")


def _points(table: pd.DataFrame) -> Float[np.ndarray, "latent 2"]:
    """General and domain activation of the latents for which both are finite."""
    points = table.to_numpy(dtype=np.float64, na_value=np.nan)
    return points[(np.abs(points) < MAX_DRAWABLE).all(axis=1)]


def _span(points: Float[np.ndarray, "latent 2"]) -> Span:
    """The range of both axes of panel B, without the weakest 2% of activations, which are drawn at the edge."""
    positive = points[points > 1e-30]
    if not len(positive):
        return Span(1e-3, 1.0)
    low = max(float(np.quantile(positive, 0.02)), float(positive.max()) * 1e-6)
    return Span(low, max(float(positive.max()), 2 * low) * 1.5)


def _forest(figure: "Figure", rows: pd.DataFrame, colours: Colours) -> None:
    """Draw the best features across layers with their intervals; with few features the panel is lower."""
    best = rows.head(MAX_FOREST_FEATURES).reset_index(drop=True)
    height = FOREST_HEIGHT * len(best) / MAX_FOREST_FEATURES
    axes = axes_at(figure, Box(NAMES_END + 0.08, LOWER + FOREST_HEIGHT - height, 1.33, height))
    estimates = shares(best)
    scale = set_share_range(axes, "x", share_range(*estimates))
    set_rows(axes, len(best))
    draw_estimates(axes, best, estimates, [colours[place] for place in places(best)])
    keys = [f"{place}/{number}" for place, number in zip(places(best), best["feature_number"], strict=True)]
    draw_names(axes, best, keys, MARGIN, NAMES_END)
    axes.set_xlabel("% of norm as in A" + (f", {scale}" if scale else "") + ",\n95% interval")
    _titled(axes, "C  Strongest features (layer/feature)", NAMES_END + 0.08 - MARGIN)
