"""Static figures for papers. Layers are ordinal, so their colours run along one perceptually uniform scale."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stratalens.report.tables import Tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOREST_FEATURES = 15
LABEL_CHARACTERS = 36
LINEAR_PERCENT = 0.5
"""Share of the norm, in percent, above which panel A is logarithmic."""
RESOLUTION = 200
Colours = dict[int, tuple[float, float, float]]


def write_overview(tables: Tables, path: Path) -> None:
    """Write the overview figure of a run as PNG."""
    import matplotlib
    import seaborn as sns
    from matplotlib.figure import Figure

    layers = sorted(tables.features)
    colours: Colours = dict(zip(layers, sns.color_palette("viridis", len(layers)), strict=True))
    style = {"font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left"}
    with sns.axes_style("whitegrid"), matplotlib.rc_context(style):
        figure = Figure(figsize=(11, 8.5), layout="constrained")
        upper, lower = figure.subfigures(2, 1)
        by_layer, activations = upper.subplots(1, 2)
        forest, separation = lower.subplots(1, 2)
        rows = tables.consolidated
        _by_layer(by_layer, rows, layers, colours, "normalised_specialization", percent=True)
        by_layer.set(title="A  Specialization by layer", ylabel="share of residual-stream norm (%)")
        by_layer.set_yscale("symlog", linthresh=LINEAR_PERCENT)  # one strong feature would flatten all others
        by_layer.yaxis.set_major_formatter("{x:g}")
        _activations(activations, tables, colours)
        _forest(forest, tables, colours)
        _by_layer(separation, rows, layers, colours, "auroc", percent=False)
        separation.axhline(0.5, color="0.35", linestyle="--", linewidth=1)
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        separation.annotate("chance", (0.99, 0.5), color="0.35", fontsize=8, **place)
        separation.set(title="D  One feature telling documents apart", ylabel="AUROC")
        figure.suptitle(_headline(tables), fontsize=10, x=0.01, ha="left")
        figure.savefig(path, dpi=RESOLUTION)


def _headline(tables: Tables) -> str:
    rows = tables.consolidated
    text = f"{len(rows)} {tables.domain} features of {len(tables.features)} layers"
    if rows["confirmed"].notna().any():
        return (
            f"{text}; selected on one half of the documents, estimated on the other; "
            f"{int(rows['confirmed'].sum())} confirmed (filled), {int((~rows['confirmed']).sum())} not (hollow)"
        )
    return f"{text}; too few documents to confirm any on held-out ones"


def _by_layer(
    axes: "Axes", rows: pd.DataFrame, layers: list[int], colours: Colours, measure: str, *, percent: bool
) -> None:
    """One dot a feature, filled where confirmed, with the layer's median."""
    jitter = np.random.default_rng(0)
    for place, layer in enumerate(layers):
        own = rows[rows["layer"] == layer]
        values = own[measure].to_numpy() * (100 if percent else 1)
        across = place + jitter.uniform(-0.22, 0.22, len(own))
        confirmed = own["confirmed"].fillna(False).to_numpy(dtype=bool)
        for mask, face in ((confirmed, colours[layer]), (~confirmed, "none")):
            axes.scatter(
                across[mask], values[mask], s=22, facecolor=face, edgecolor=colours[layer], linewidth=0.9, alpha=0.85
            )
        if len(values):
            axes.hlines(np.median(values), place - 0.34, place + 0.34, color="black", linewidth=1.6)
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set_xlabel("layer (bar: median)")
    axes.grid(axis="x", visible=False)


def _activations(axes: "Axes", tables: Tables, colours: Colours) -> None:
    """Domain against general activation, every live latent grey behind the reported ones."""
    domain = f"{tables.domain}_activation"
    live = pd.concat([table[table["live"]] for table in tables.latents.values()])
    positive = live[[domain, "general_activation"]].to_numpy()
    floor = max(1e-4, float(np.quantile(positive[positive > 0], 0.02))) if (positive > 0).any() else 1e-4
    axes.scatter(
        live["general_activation"].clip(lower=floor),
        live[domain].clip(lower=floor),
        s=3,
        color="0.8",
        linewidth=0,
        rasterized=True,
        label="other latents",
    )
    for layer, colour in colours.items():
        own = tables.features[layer]
        axes.scatter(
            own["general_activation"].clip(lower=floor),
            own[domain].clip(lower=floor),
            s=20,
            color=colour,
            label=f"layer {layer}",
        )
    top = float(np.nanmax(positive)) * 1.5 if len(positive) else 1.0
    axes.plot([floor, top], [floor, top], color="0.35", linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(floor * 0.8, top), ylim=(floor * 0.8, top))
    axes.set(
        title="B  Activation on the two kinds of text",
        xlabel="mean activation on general text",
        ylabel=f"mean activation on {tables.domain} text",
    )
    axes.legend(fontsize=8, loc="lower right", framealpha=0.9)


def _forest(axes: "Axes", tables: Tables, colours: Colours) -> None:
    """The best features across layers, with their intervals."""
    best = tables.consolidated.head(FOREST_FEATURES).iloc[::-1].reset_index(drop=True)
    value = best["normalised_specialization"] * 100
    low, high = best["normalised_low"] * 100, best["normalised_high"] * 100
    for place in range(len(best)):
        colour = colours[int(best["layer"].iloc[place])]
        axes.plot([low.iloc[place], high.iloc[place]], [place, place], color=colour, linewidth=2)
        axes.plot(value.iloc[place], place, "o", color=colour, markersize=5)
    names = [f"{row.layer}/{row.feature_number}  {_shortened(row.label)}" for row in best.itertuples()]
    axes.set_yticks(range(len(best)), names, fontsize=7.5)
    axes.axvline(0, color="0.35", linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.set(
        title=f"C  Top {len(best)} features (layer/feature)",
        xlabel="specialization, share of residual-stream norm (%), 95% interval",
    )


def _shortened(label: str) -> str:
    text = label if len(label) <= LABEL_CHARACTERS else label[: LABEL_CHARACTERS - 1].rstrip(" ,:") + "…"
    return text.replace("$", r"\$")
