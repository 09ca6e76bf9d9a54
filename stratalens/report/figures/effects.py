"""The figure of effects: what each layer's confirmed features are worth to both sides, and what controls cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stratalens.effects.layer_effects import Excess, LayerEffect
from stratalens.report.effect_record import EffectRecord
from stratalens.report.figures.drawing import (
    GREY,
    TEXT_SIZE,
    TITLE_SIZE,
    WIDTH,
    Box,
    axes_at,
    new_figure,
    save,
    short_domain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, TOP, BOTTOM, MARGIN = 0.42, 0.84, 0.5, 0.08
"""Inches: height of a row, space above and below the rows, space at the sides."""
EFFECTS, DIFFERENCES = (0.95, 2.75), (3.95, 2.95)
"""Inches: left edge and width of the two panels."""
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"
"""From the palette of Okabe and Ito, which colour-blind readers can distinguish."""
NOTE = (
    "Change of the next-token loss when a layer's confirmed features are removed together; bars are 95% intervals.\n"
    "Filled: the domain loses more than general text, beyond the controls. Hollow: not shown. Bands: all controls."
)


def write_effects_figure(record: EffectRecord, domain: str, stem: Path) -> None:
    """Write the figure of the effects on one text as `<stem>.png` and `<stem>.svg`.

    Args:
        record: of the effects, with at least one layer.
        domain: name of the domain.
        stem: path of the files without their suffixes.
    """
    effects = [(str(place), effect) for place, effect in sorted(record.layer_effects.items())]
    title = effects_title(record, domain)
    figure = new_figure(TOP + BOTTOM + ROW * len(effects))
    height = figure.get_size_inches()[1]
    figure.text(MARGIN / WIDTH, 1 - 0.08 / height, title, fontsize=TITLE_SIZE, fontweight="bold", va="top")
    figure.text(MARGIN / WIDTH, 1 - 0.27 / height, NOTE, va="top", color=GREY, linespacing=1.25)
    body = ROW * len(effects)
    both = axes_at(figure, Box(EFFECTS[0], BOTTOM, EFFECTS[1], body))
    difference = axes_at(figure, Box(DIFFERENCES[0], BOTTOM, DIFFERENCES[1], body))
    for axes in (both, difference):
        axes.set_ylim(len(effects) - 0.5, -0.5)
        axes.set_yticks(range(len(effects)), [""] * len(effects))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    _draw_sides(both, [effect for _, effect in effects], short_domain(domain))
    _draw_differences(difference, [effect for _, effect in effects], short_domain(domain))
    _name_rows(figure, both, effects)
    save(figure, stem, title)


def effects_title(record: EffectRecord, domain: str) -> str:
    """The title of the figure: how many layers the domain is shown to need."""
    shown = sum(effect.verdict == "the domain loses more" for effect in record.layers.values())
    where = "" if record.is_own_text else f", on {record.name}"
    return f"Layers that {short_domain(domain)} text is shown to need: {shown} of {len(record.layers)}{where}"


def _name_rows(figure: "Figure", axes: "Axes", effects: Sequence[tuple[str, LayerEffect]]) -> None:
    from matplotlib.transforms import blended_transform_factory

    transform = blended_transform_factory(figure.dpi_scale_trans, axes.transData)
    style: dict[str, Any] = {"transform": transform, "fontsize": TEXT_SIZE, "ha": "right"}
    for row, (place, effect) in enumerate(effects):
        axes.text(EFFECTS[0] - 0.08, row - 0.02, f"layer {place}", va="bottom", **style)
        removed = f"{effect.features} removed"
        axes.text(EFFECTS[0] - 0.08, row + 0.04, removed, va="top", color=GREY, **style)


def _draw_sides(axes: "Axes", effects: Sequence[LayerEffect], domain: str) -> None:
    sides = ((f"{domain} text", BLUE, -0.16, "domain"), ("general text", VERMILION, 0.16, "general"))
    for name, colour, offset, side in sides:
        values = np.array([getattr(effect, f"{side}_effect") for effect in effects])
        low = np.array([getattr(effect, f"{side}_effect_low") for effect in effects])
        high = np.array([getattr(effect, f"{side}_effect_high") for effect in effects])
        rows = np.arange(len(effects)) + offset
        axes.hlines(rows, low, high, color=colour, linewidth=1.2, zorder=2)
        axes.scatter(values, rows, s=15, color=colour, zorder=3, label=name)
    _finish(axes, "change of the loss\n(nats a token)")


def _draw_differences(axes: "Axes", effects: Sequence[LayerEffect], domain: str) -> None:
    controls = (("random directions", "0.6", -0.2), ("matched latents", GREEN, 0.2))
    for (name, colour, offset), kind in zip(controls, ("random", "matched"), strict=True):
        own: list[tuple[int, Excess]] = [
            (row, excess) for row, effect in enumerate(effects) if (excess := getattr(effect, kind)) is not None
        ]
        rows = np.array([row for row, _ in own]) + offset
        low, high = (np.array([getattr(excess, f"control_{end}") for _, excess in own]) for end in ("low", "high"))
        if own:
            axes.hlines(rows, low, high, color=colour, linewidth=4.5, alpha=0.55, zorder=1, label=name)
    values, low, high = (
        np.array([getattr(effect, f"difference{end}") for effect in effects]) for end in ("", "_low", "_high")
    )
    rows = np.arange(len(effects))
    axes.hlines(rows, low, high, color=BLUE, linewidth=1.2, zorder=2)
    faces = [BLUE if effect.verdict == "the domain loses more" else "white" for effect in effects]
    axes.scatter(values, rows, s=15, facecolors=faces, edgecolors=BLUE, linewidth=0.9, zorder=3, label="features")
    _finish(axes, f"{domain} less general\n(nats a token)")


def _finish(axes: "Axes", label: str) -> None:
    axes.margins(x=0.06)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.locator_params(axis="x", nbins=6)
    box = {"frameon": False, "handlelength": 1.1, "handletextpad": 0.5, "columnspacing": 1.1, "borderaxespad": 0.1}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, **box)
