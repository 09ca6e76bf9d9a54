"""Figures: what they show, that the same tables give the same bytes, and that any text and number can be drawn."""

import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from stratalens.config.validation import make_config
from stratalens.hookpoint import Hookpoint
from stratalens.optional_parts import OptionalParts
from stratalens.progress import NoProgress
from stratalens.ranking.layer_facts import LayerFacts
from stratalens.report.figures.drawing import (
    RESOLUTION,
    fitted,
    new_figure,
    paper_style,
    plain,
    set_share_range,
    share_range,
)
from stratalens.report.figures.forest import draw_estimates, set_rows, shares
from stratalens.report.figures.layer import MAX_FEATURES, layer_title, write_layer_figure
from stratalens.report.figures.write import write_figures
from stratalens.report.tables import Tables, build_tables

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
HOSTILE = [
    *(
        r"$x^2$ and $\frac{1}{2",
        '<script>alert(1)</script> & "quotes" -- \'-->',
        r"back\slash \n",
        "\U0001f4b0 \U0001f4c8",
    ),
    *("مصرف: ودائع وقروض", "בנק: ריבית 5%", "银行利率", "ब्याज दर", "line\nbreak\r\nand\ttab", "nul \x00 and \x1b[31m"),
    *(
        "\u202ereversed\u202c",
        "\ud800 lone, \uffff none",
        "Z" + "\u0320\u0301" * 80,
        "W" * 300,
        "x " * 5000,
        "",
        None,
        np.nan,
    ),
]


def features(count: int, labels: Sequence[object] = (), seed: int = 0) -> pd.DataFrame:
    """Reported features in the columns of the ranking, every third not confirmed."""
    draw = np.random.default_rng(seed)
    share, area = np.sort(draw.lognormal(-6, 1, count))[::-1], draw.uniform(0.55, 0.98, count)
    table = pd.DataFrame(
        {
            "feature_number": np.arange(count) * 7,
            "domain_activation": share * 100,
            "general_activation": share * draw.uniform(0, 90, count),
            "specialization": share * 50,
            "rank": np.arange(1, count + 1),
            "normalised_specialization": share,
            "normalised_low": share * 0.8,
            "normalised_high": share * 1.2,
            "auroc": area,
            "auroc_low": area - 0.03,
            "auroc_high": area + 0.02,
            "confirmed": pd.array([row % 3 < 2 for row in range(count)], dtype="boolean"),
        }
    )
    named = [labels[row % len(labels)] if labels else f"Concept {row}: word" for row in range(count)]
    return table.assign(label=pd.Series(named, dtype=object))


def tables(by_block: dict[int, pd.DataFrame], latents: int = 50, domain: str = "financial") -> Tables:
    top = {Hookpoint(block): table for block, table in by_block.items()}
    draw = np.random.default_rng(1)
    other = pd.DataFrame(draw.lognormal(-2, 2, (latents, 2)), columns=["domain_activation", "general_activation"])
    other = other.assign(feature_number=np.arange(latents), specialization=0.0, normalised_specialization=0.0)
    every = dict.fromkeys(top, other.assign(live=True, selected=False))
    facts = dict.fromkeys(top, LayerFacts(0.2, 10.0, 0.0))
    return build_tables(make_config(domain=domain, domain_data="any.txt"), top, every, facts)


def written(content: Tables, directory: Path) -> list[Path]:
    """All figures of a axis_range, written without a warning."""
    directory.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_figures(content, directory, OptionalParts(NoProgress(), required=True))
    return sorted(path for path in directory.rglob("*") if path.is_file())


def drawing(path: Path) -> ElementTree.Element:
    """The root of an SVG file, checked to be complete and to hold no code and no links to other files."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    for element in root.iter():
        assert element.tag not in (f"{SVG}script", f"{SVG}foreignObject", f"{SVG}text", f"{SVG}a")
        assert not [name for name in element.attrib if name.startswith("on")]
        assert element.get(LINK, "#").startswith(("#", "data:image/png;base64,"))
    return root


def glyphs(path: Path) -> int:
    return sum(element.get(LINK, "").startswith("#DejaVu") for element in drawing(path).iter(f"{SVG}use"))


def test_a_run_has_one_figure_and_each_layer_another_as_png_and_svg_no_wider_than_a_page(tmp_path):
    paths = written(tables({3: features(30), 11: features(4)}), tmp_path / "out")
    stems = ("financial_feature_analysis", "layer_11/financial_features", "layer_3/financial_features")
    assert [str(path.relative_to(tmp_path / "out")) for path in paths] == [
        f"{stem}{ending}" for stem in stems for ending in (".png", ".svg")
    ]
    for path in paths[::2]:
        height, width, _ = imread(path).shape
        root = drawing(path.with_suffix(".svg"))
        assert width == 7 * RESOLUTION
        assert root.get("width") == f"{7 * 72}pt"
        assert float(str(root.get("height")).removesuffix("pt")) / 72 == pytest.approx(height / RESOLUTION, abs=0.01)
        assert imread(path)[..., :3].min() < 0.1, "blank"


def test_the_same_tables_give_the_same_bytes_whatever_style_the_user_has_set(tmp_path):
    content = tables({3: features(5, HOSTILE)})
    first = written(content, tmp_path / "first")
    own = {"font.size": 30, "font.family": "serif", "svg.hashsalt": None, "axes.facecolor": "black", "savefig.dpi": 30}
    with matplotlib.rc_context(own):
        second = written(content, tmp_path / "second")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_no_text_fails_warns_or_reaches_the_terminal(tmp_path, capfd):
    paths = written(tables({3: features(len(HOSTILE), HOSTILE), 4: features(12, HOSTILE[::-1])}), tmp_path / "out")
    for path in paths[1::2]:
        drawing(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("label", ["$x^2$", "<b>&amp;</b>", r"\alpha$", "a_{b}"])
def test_text_is_shown_as_text_one_glyph_per_character(tmp_path, label):
    counts = []
    for shown in ("", label):
        with paper_style():
            write_layer_figure(Hookpoint(3), features(1, [shown]), "financial", tmp_path / "figure")
        counts.append(glyphs(tmp_path / "figure.svg"))
    assert counts[1] - counts[0] == len(label)


def test_plain_text_is_one_line_without_layout_characters():
    assert plain(" a\n\tb\u2028c\u00a0d ") == "a b c d"
    assert plain("\u202eabc\u2066d\u00ad\ufeff") == "abcd"
    assert plain("a\x00\x1b\ud800\ufffe") == "a" + "\ufffd" * 4
    assert plain("می\u200cشود") == "می\u200cشود"
    assert [plain(other) for other in (None, np.nan, pd.NA, 3)] == [""] * 4


def test_a_cut_label_fits_and_ends_with_a_whole_word_where_there_is_one():
    with paper_style():
        figure = new_figure(1.0)
        assert fitted(figure, "Bond yields", 2.0) == "Bond yields"
        assert fitted(figure, "Rates and percentages: percent, basis points", 1.5) == "Rates and percentages…"
        cut = fitted(figure, "W" * 200, 1.5)
        assert 8 < len(cut) < 40
        assert figure.text(0, 0, cut, fontsize=7).get_window_extent().width <= 1.5 * RESOLUTION


def test_confirmed_features_are_filled_and_all_others_hollow():
    rows = features(6)
    rows.loc[5, "confirmed"] = pd.NA
    axes = new_figure(1.0).add_subplot()
    set_rows(axes, len(rows))
    axes.set_xlim(0, 5)
    draw_estimates(axes, rows, shares(rows), ["#0072b2"] * len(rows))
    markers = axes.collections[-1]
    filled = [to_hex(colour) == "#0072b2" for colour in markers.get_facecolor()]
    assert filled == [True, True, False, True, True, False]
    assert np.allclose(np.asarray(markers.get_offsets())[:, 0], rows["normalised_specialization"] * 100)
    ends = np.array([segment[:, 0] for segment in axes.collections[0].get_segments()])
    assert np.allclose(ends, rows[["normalised_low", "normalised_high"]].to_numpy() * 100)


def test_titles_say_layer_domain_and_how_many_are_confirmed():
    assert layer_title(Hookpoint(3), features(30), "financial") == "Layer 3: 20 of 30 financial features confirmed"
    assert layer_title(Hookpoint(3), features(1), "legal") == "Layer 3: 1 of 1 legal feature confirmed"
    assert layer_title(Hookpoint(3), features(0), "legal") == "Layer 3: no legal features reported"
    assert layer_title(Hookpoint(3), features(90), "legal").endswith(f"; the first {MAX_FEATURES} are shown")
    untested = features(2).assign(confirmed=pd.array([pd.NA, pd.NA], dtype="boolean"))
    assert layer_title(Hookpoint(3), untested, "legal") == "Layer 3: 2 legal features, without confirmation"


def damaged(column: str, value: float) -> pd.DataFrame:
    table = features(4)
    table.loc[1, column] = value
    return table


ESTIMATES = ["normalised_specialization", "normalised_low", "normalised_high", "auroc", "auroc_low", "auroc_high"]
DEGENERATE = {
    "no features at all": {3: features(0)},
    "a layer without features": {3: features(2), 4: features(0)},
    "one feature": {3: features(1)},
    "no documents held out": {3: features(3).assign(confirmed=pd.array([pd.NA] * 3, dtype="boolean"))},
    "no estimates": {3: features(3).assign(**dict.fromkeys(ESTIMATES, np.nan))},
    "infinite estimates": {3: features(3).assign(**dict.fromkeys(ESTIMATES, np.inf))},
    "all zero": {3: features(3).assign(**dict.fromkeys([*ESTIMATES, "domain_activation", "general_activation"], 0.0))},
    "one NaN": {3: damaged("normalised_specialization", np.nan), 4: damaged("auroc", np.nan)},
    "endless intervals": {3: damaged("normalised_low", -np.inf), 4: damaged("auroc_high", np.inf)},
    "huge and tiny": {3: damaged("normalised_high", 1e300), 4: damaged("normalised_low", 5e-324)},
    "infinite activation": {3: damaged("domain_activation", np.inf), 4: damaged("general_activation", -np.inf)},
    "many layers": {layer: features(1, seed=layer) for layer in range(0, 70, 9)},
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_any_number_can_be_drawn(tmp_path, name, capfd):
    paths = written(tables(DEGENERATE[name], domain="d" * 64), tmp_path / "out")
    assert len(paths) == 2 + 2 * len(DEGENERATE[name])
    for path in paths[1::2]:
        drawing(path)
    assert capfd.readouterr() == ("", "")


def test_without_latents_there_is_still_a_figure(tmp_path):
    assert len(written(tables({3: features(0)}, latents=0), tmp_path / "out")) == 4


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.1, 0.2, 0.3], "linear"),
        ([0.31], "linear"),
        ([-0.2, -0.1], "linear"),
        ([0.1, 0.2, 0.3, 7.0], "log"),
        ([0.021, 0.022, 0.2], "log"),
        ([-0.1, 0.2, 0.3, 7.0], "asinh"),
        ([1e-6, 0.2, 0.3, 7.0], "asinh"),
        ([-9.0, -0.2, -0.1], "asinh"),
        ([0.0, 0.0, 0.0], "linear"),
        ([], "linear"),
        ([2e-5, 3e-5], "linear"),
    ],
)
def test_shares_get_a_scale_that_holds_all_of_them_with_ticks_to_read(values, scale):
    axis_range = share_range(np.array([*values, np.nan, np.inf]))
    axes = new_figure(3.0).add_subplot()
    assert axis_range.scale == scale
    assert all(axis_range.low < value < axis_range.high or value == 0 for value in values)
    assert set_share_range(axes, "y", axis_range) == ("" if scale == "linear" else f"{scale} scale")
    shown = [tick for tick in axes.get_yticks() if axis_range.low <= tick <= axis_range.high]
    assert len(shown) >= 3


def test_dense_figures_stay_small(tmp_path):
    paths = written(tables({3: features(30), 4: features(30, seed=1)}, latents=30_000), tmp_path / "out")
    assert all(path.stat().st_size < 400_000 for path in paths if path.suffix == ".svg")
