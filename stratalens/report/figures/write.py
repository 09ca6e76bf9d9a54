"""Write the static figures for papers, each as PNG and as SVG: of the whole run, of each layer, and of effects."""

from collections.abc import Sequence
from pathlib import Path

from stratalens.optional_parts import FIGURES, OptionalParts
from stratalens.report.effect_record import FIGURE_STEM, EffectRecord
from stratalens.report.figures.drawing import paper_style
from stratalens.report.figures.effects import write_effects_figure
from stratalens.report.figures.layer import write_layer_figure
from stratalens.report.figures.overview import write_overview
from stratalens.report.tables import Tables


def write_figures(tables: Tables, directory: Path, parts: OptionalParts, effects: Sequence[EffectRecord] = ()) -> None:
    """Write all figures of a run below an existing directory; one that cannot be drawn costs only itself.

    Args:
        tables: the tables of the run.
        directory: where the figures go.
        parts: every figure is an optional part.
        effects: on each text on which they were measured.

    Raises:
        OSError: a figure cannot be written.
    """
    with parts.part(FIGURES), paper_style():
        with parts.part(FIGURES, of="all layers"):
            write_overview(tables, directory / f"{tables.domain}_feature_analysis")
        for hookpoint, features in tables.features.items():
            folder = directory / f"layer_{hookpoint}"
            folder.mkdir(parents=True, exist_ok=True)
            with parts.part(FIGURES, of=f"layer {hookpoint}"):
                write_layer_figure(hookpoint, features, tables.domain, folder / f"{tables.domain}_features")
        for own in effects:
            if own.layers:
                with parts.part(FIGURES, of=f"effects on {own.title}"):
                    write_effects_figure(own, tables.domain, directory / own.file_name(FIGURE_STEM, ""))
