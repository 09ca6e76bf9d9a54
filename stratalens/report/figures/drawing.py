"""What all figures share: style, files, safe text of any origin, the scales of axes."""

import io
import logging
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
"""Dots per inch."""
COMPRESSION = 3
"""Of PNG files: higher levels take longer and make larger ones."""
TEXT_SIZE = 7
"""Points."""
TITLE_SIZE = 8.5
GREY = "0.35"
MAX_LABEL_CHARACTERS = 200
"""Longer labels are cut before they are measured: two hundred characters never fit in a row."""
MAX_DROPPED_CHARACTERS = 12
"""Characters of an incomplete last word that a shortened label drops, so that it ends with a whole word."""
MAX_DOMAIN_CHARACTERS = 16
JOINERS = "\u200c\u200d"
"""Format characters that join letters in Persian and Indic scripts; all others are dropped."""
MAX_DRAWABLE = 1e100
"""Larger absolute values count as infinite."""
FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "PingFang SC", "Hiragino Sans", "Microsoft YaHei"),
    *("Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS", "Noto Sans Devanagari", "Noto Emoji"),
)
"""For scripts that the font shipped with matplotlib lacks; those that are installed are tried in this order."""
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
"""SVG text is drawn as paths, so that it looks the same without the font; without hinting, PNG text is as wide."""


class Box(NamedTuple):
    """A rectangle on a figure, in inches from its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float


class Range(NamedTuple):
    """The limits and the scale of an axis."""

    low: float
    high: float
    scale: str
    """`linear`, `log` or `asinh`."""
    linear_width: float = 1.0
    """Width of the nearly linear part around zero of an `asinh` scale."""


@contextmanager
def paper_style() -> Iterator[None]:
    """Apply the style of all figures, whatever the user's own settings of matplotlib are."""
    with _without_font_warnings():
        import matplotlib.style
        from matplotlib.font_manager import fontManager

        installed = set(fontManager.get_font_names())
        fonts = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
        with matplotlib.style.context(["default", STYLE | {"font.family": fonts}]):
            yield


@contextmanager
def _without_font_warnings() -> Iterator[None]:
    """Silence warnings about characters that no installed font has; they are drawn as boxes."""
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
    """An empty figure of full width and `height` inches, with a canvas that can measure text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=RESOLUTION)
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: "Figure", box: Box) -> "Axes":
    """Add axes in a fixed rectangle, so that panels are aligned whatever their text."""
    width, height = figure.get_size_inches()
    return figure.add_axes((box.left / width, box.bottom / height, box.width / width, box.height / height))


def save(figure: "Figure", stem: Path, title: str) -> None:
    """Write a figure as `<stem>.png` and `<stem>.svg`, the same bytes for the same figure.

    Both are drawn before either is written, so that a figure that cannot be drawn leaves no file.
    """
    drawn: dict[str, bytes] = {}
    of_format: dict[str, dict[str, Any]] = {
        "png": {"metadata": {"Title": title}, "pil_kwargs": {"compress_level": COMPRESSION}},
        "svg": {"metadata": {"Title": title, "Date": None}},
    }
    for suffix, options in of_format.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=RESOLUTION, **options)
        drawn[suffix] = buffer.getvalue()
    for suffix, content in drawn.items():
        stem.with_name(f"{stem.name}.{suffix}").write_bytes(content)


def plain(text: object) -> str:
    """Any text on one line, without characters that change its layout or that XML forbids; empty if not a string."""
    if not isinstance(text, str):
        return ""
    return "".join(_printable(character) for character in " ".join(text[: 4 * MAX_LABEL_CHARACTERS].split()))[
        :MAX_LABEL_CHARACTERS
    ]


def _printable(character: str) -> str:
    """The character if it can be printed; else nothing for a format character, a replacement character for others."""
    if character.isprintable() or character in JOINERS:
        return character
    return "" if unicodedata.category(character) == "Cf" else "\ufffd"


def short_domain(domain: str) -> str:
    """The name of a domain, shortened to fit in a title."""
    return domain if len(domain) <= MAX_DOMAIN_CHARACTERS else domain[: MAX_DOMAIN_CHARACTERS - 1] + "…"


def fitted(figure: "Figure", text: str, inches: float) -> str:
    """The text if it is no wider than `inches`, else the longest beginning that fits, with an ellipsis."""
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
    return _cut(words if space and len(last) <= MAX_DROPPED_CHARACTERS else text, fits)


def _cut(text: str, characters: int) -> str:
    return text[:characters].rstrip(" ,:;") + "…"


def _inches(figure: "Figure", text: str) -> float:
    from matplotlib.text import Text

    return Text(text=text, figure=figure, size=TEXT_SIZE, parse_math=False).get_window_extent().width / figure.dpi


def numbers(column: pd.Series, factor: float = 1.0) -> Float[np.ndarray, " row"]:
    """A column times a factor as numbers, with NaN for missing values."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan) * factor


def is_confirmed(rows: pd.DataFrame) -> Bool[np.ndarray, " row"]:
    """Which features the held-out documents confirm; none if no documents were held out."""
    return rows["confirmed"].fillna(False).to_numpy(dtype=bool)


def was_tested(rows: pd.DataFrame) -> bool:
    """Whether documents were held out to confirm features."""
    return bool(rows["confirmed"].notna().any())


def share_range(*columns: Float[np.ndarray, " row"]) -> Range:
    """The range of an axis of shares: linear from zero, unless one strong feature would flatten all others.

    Then it is logarithmic, or an inverse hyperbolic sine if some values are zero or negative or span over 1000-fold.
    """
    values = np.concatenate(columns)
    values = values[np.abs(values) < MAX_DRAWABLE]
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


def set_share_range(axes: "Axes", name: str, axis_range: Range) -> str:
    """Set limits and scale of the axis `x` or `y`, with ticks written as numbers and not as powers.

    Returns:
        The name of the scale for the label of the axis; empty if it is linear.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis: Axis = getattr(axes, f"{name}axis")
    set_scale, set_limits = getattr(axes, f"set_{name}scale"), getattr(axes, f"set_{name}lim")
    set_scale(axis_range.scale, **({"linear_width": axis_range.linear_width} if axis_range.scale == "asinh" else {}))
    set_limits(axis_range.low, axis_range.high)
    extent = max(abs(axis_range.low), abs(axis_range.high))
    if axis_range.scale == "log":
        decades = np.log10(axis_range.high / axis_range.low)
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.3 else (1.0,)))
    elif axis_range.scale == "asinh":
        axis.set_ticks(_asinh_ticks(axis_range))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    if axis_range.scale != "linear" or not 1e-3 < extent < 1e5:
        axis.set_major_formatter("{x:g}")
    if axis_range.low < 0 < axis_range.high:
        line = axes.axvline if name == "x" else axes.axhline
        line(0, color=GREY, linewidth=0.8, zorder=1)
    return "" if axis_range.scale == "linear" else f"{axis_range.scale} scale"


def _asinh_ticks(axis_range: Range) -> list[float]:
    """Zero and round numbers of both signs, chosen from the largest down, as far apart as their text needs."""
    powers = range(int(np.log10(axis_range.linear_width)) - 2, int(np.log10(max(-axis_range.low, axis_range.high))) + 1)
    round_numbers = [lead * 10.0**power for power in reversed(powers) for lead in (1, 5, 2)]
    positions = {0.0: 0.0} if axis_range.low <= 0 <= axis_range.high else {}
    first, last = np.arcsinh(np.array([axis_range.low, axis_range.high]) / axis_range.linear_width)
    for number in [sign * number for number in round_numbers for sign in (1, -1)]:
        position = float(np.arcsinh(number / axis_range.linear_width))
        apart = min((abs(position - other) for other in positions.values()), default=np.inf)
        if first <= position <= last and apart >= 0.13 * (last - first):
            positions[number] = position
    return sorted(positions)
