"""What all figures share: style, files, text from corpora, scales of an axis."""

import logging
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 7.0
"""Inches: two columns of most journals, so that no figure is shrunk and its smallest text stays at `TEXT_SIZE`."""
RESOLUTION = 300
TEXT_SIZE = 7
TITLE_SIZE = 8.5
GREY = "0.35"
MOST_CHARACTERS = 200
"""Characters of a label that are measured at all: none of two hundred fits a row."""
MOST_DROPPED = 12
"""Characters of a word's beginning that a cut label gives up, so as to end with a whole word."""
DOMAIN_CHARACTERS = 16
JOINERS = "\u200c\u200d"
"""Shape letters in Persian and Indic scripts; all other format characters are dropped."""
DRAWABLE = 1e100
"""Numbers beyond it count as infinite."""
FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "PingFang SC", "Hiragino Sans", "Microsoft YaHei"),
    *("Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS", "Noto Sans Devanagari", "Noto Emoji"),
)
"""For scripts that the font shipped with matplotlib lacks; those at hand are asked, in this order."""
STYLE = {
    "font.size": TEXT_SIZE,
    "axes.labelsize": TEXT_SIZE,
    "axes.titlesize": TITLE_SIZE - 0.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.edgecolor": "0.6",
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "axes.grid": True,
    "grid.color": "0.87",
    "grid.linewidth": 0.5,
    "xtick.labelsize": TEXT_SIZE,
    "ytick.labelsize": TEXT_SIZE,
    "xtick.color": "0.6",
    "ytick.color": "0.6",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": TEXT_SIZE,
    "text.hinting": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "stratalens",
}
"""SVG text is paths: a viewer without the font, and with another, shows the same figure. Unhinted, PNG is no wider."""


class Box(NamedTuple):
    """A place on a figure, in inches from its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float


class Range(NamedTuple):
    """Where an axis begins and ends, and how it runs between."""

    low: float
    high: float
    scale: str
    width: float = 1.0
    """Of the linear part around zero of an `asinh` scale."""


@contextmanager
def paper_style() -> Iterator[None]:
    """The style of all figures, whatever the user's own settings of matplotlib say."""
    with _quiet_about_fonts():
        import matplotlib.style
        from matplotlib.font_manager import fontManager

        at_hand = set(fontManager.get_font_names())
        fonts = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in at_hand)]
        with matplotlib.style.context(["default", STYLE | {"font.family": fonts}]):
            yield


@contextmanager
def _quiet_about_fonts() -> Iterator[None]:
    """A character that no font at hand holds is drawn as a box: no reason to stop, nor news for the terminal."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(Glyph|Matplotlib currently does not support)", category=UserWarning)
            yield
    finally:
        log.setLevel(level)


def new_figure(height: float) -> "Figure":
    """An empty figure of full width and so many inches of height, with a canvas that measures text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=RESOLUTION)
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: "Figure", box: Box) -> "Axes":
    """Axes at a fixed place, so that panels are aligned whatever their text."""
    width, height = figure.get_size_inches()
    return figure.add_axes((box.left / width, box.bottom / height, box.width / width, box.height / height))


def save(figure: "Figure", stem: Path, title: str) -> None:
    """Write a figure as `<stem>.png` and `<stem>.svg`, the same bytes for the same figure."""
    for suffix, more in ((".png", {}), (".svg", {"Date": None})):
        path = stem.with_name(stem.name + suffix)
        figure.savefig(path, dpi=RESOLUTION, metadata={"Title": title, **more})


def plain(text: object) -> str:
    """Text of any origin on one line, without characters that steer the layout or that XML forbids."""
    if not isinstance(text, str):
        return ""
    return "".join(_shown(character) for character in " ".join(text[: 4 * MOST_CHARACTERS].split()))[:MOST_CHARACTERS]


def _shown(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return "" if unicodedata.category(character) == "Cf" else "\ufffd"


def short_domain(domain: str) -> str:
    """The name of a domain as titles have room for."""
    return domain if len(domain) <= DOMAIN_CHARACTERS else domain[: DOMAIN_CHARACTERS - 1] + "…"


def fitted(figure: "Figure", text: str, inches: float) -> str:
    """The text, or as much of its beginning as is no wider than so many inches, with an ellipsis."""
    if _inches(figure, text) <= inches:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if _inches(figure, _cut(text, middle)) <= inches:
            fits = middle
        else:
            too_long = middle
    words, space, last = text[:fits].rpartition(" ")
    return _cut(words if space and len(last) <= MOST_DROPPED else text, fits)


def _cut(text: str, characters: int) -> str:
    return text[:characters].rstrip(" ,:;") + "…"


def _inches(figure: "Figure", text: str) -> float:
    from matplotlib.text import Text

    return Text(text=text, figure=figure, size=TEXT_SIZE, parse_math=False).get_window_extent().width / figure.dpi


def numbers(column: pd.Series, factor: float = 1.0) -> Float[np.ndarray, " row"]:
    """A column as numbers, where missing ones are NaN."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan) * factor


def is_confirmed(rows: pd.DataFrame) -> Bool[np.ndarray, " row"]:
    """Features that the held-out documents confirm; where there are none, no feature is."""
    return rows["confirmed"].fillna(False).to_numpy(dtype=bool)


def was_tested(rows: pd.DataFrame) -> bool:
    """Whether documents were held out to confirm features on."""
    return bool(rows["confirmed"].notna().any())


def share_range(*columns: Float[np.ndarray, " row"]) -> Range:
    """How an axis of shares runs: linear from zero, unless one strong feature would flatten all others.

    Then it is logarithmic, or where values of zero and below forbid that, an inverse hyperbolic sine.
    """
    values = np.concatenate(columns)
    values = values[np.abs(values) < DRAWABLE]
    if not len(values) or np.ptp([0.0, *values]) < 1e-12:
        return Range(0.0, 1.0, "linear")
    low, high = float(values.min()), float(values.max())
    typical = float(np.median(np.abs(values)))
    if max(-low, high) <= 6 * typical or not typical:
        low, high = min(low, 0.0), max(high, 0.0)
        margin = 0.03 * (high - low)
        return Range(low - margin, high + margin, "linear")
    if low > 0 and high / low <= 1e3:
        return Range(low / 1.2, high * 1.2, "log")
    return Range(low - 0.2 * abs(low), high * 1.2 if high > 0 else 0.8 * high, "asinh", typical)


def set_share_range(axes: "Axes", name: str, run: Range) -> str:
    """Let the axis `x` or `y` run so, with ticks that are numbers and not powers.

    Returns:
        What the label of the axis says of its scale, nothing of a linear one.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis: Axis = getattr(axes, f"{name}axis")
    set_scale, set_limits = getattr(axes, f"set_{name}scale"), getattr(axes, f"set_{name}lim")
    set_scale(run.scale, **({"linear_width": run.width} if run.scale == "asinh" else {}))
    set_limits(run.low, run.high)
    extent = max(abs(run.low), abs(run.high))
    if run.scale == "log":
        decades = np.log10(run.high / run.low)
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.3 else (1.0,)))
    elif run.scale == "asinh":
        axis.set_ticks(_asinh_ticks(run))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    if run.scale != "linear" or not 1e-3 < extent < 1e5:
        axis.set_major_formatter("{x:g}")
    if run.low < 0 < run.high:
        line = axes.axvline if name == "x" else axes.axhline
        line(0, color=GREY, linewidth=0.8, zorder=1)
    return "" if run.scale == "linear" else f"{run.scale} scale"


def _asinh_ticks(run: Range) -> list[float]:
    """Zero and round numbers of both signs, the largest first, where there is room for their text."""
    powers = range(int(np.log10(run.width)) - 2, int(np.log10(max(-run.low, run.high))) + 1)
    round_numbers = [lead * 10.0**power for power in reversed(powers) for lead in (1, 5, 2)]
    places = {0.0: 0.0} if run.low <= 0 <= run.high else {}
    first, last = np.arcsinh(np.array([run.low, run.high]) / run.width)
    for number in [sign * number for number in round_numbers for sign in (1, -1)]:
        place = float(np.arcsinh(number / run.width))
        apart = min((abs(place - other) for other in places.values()), default=np.inf)
        if first <= place <= last and apart >= 0.13 * (last - first):
            places[number] = place
    return sorted(places)
