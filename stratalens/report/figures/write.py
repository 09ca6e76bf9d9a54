"""Write the static figures for papers: one of the whole run and one of each layer, each as PNG and as SVG."""

from pathlib import Path

from stratalens.report.figures.drawing import paper_style
from stratalens.report.figures.layer import write_layer_figure
from stratalens.report.figures.overview import write_overview
from stratalens.report.tables import Tables


def write_figures(tables: Tables, directory: Path) -> None:
    """Write all figures of a run below an existing directory."""
    with paper_style():
        write_overview(tables, directory / f"{tables.domain}_feature_analysis")
        for hookpoint, features in tables.features.items():
            folder = directory / f"layer_{hookpoint}"
            folder.mkdir(parents=True, exist_ok=True)
            write_layer_figure(hookpoint, features, tables.domain, folder / f"{tables.domain}_features")
