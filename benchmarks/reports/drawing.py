"""What every figure shares: colours, curves with direct labels, axes, themed SVG text, and files of its own.

Colours are written as CSS variables with the light theme as fallback (``var(--ink, #24292f)``), so that one
drawing serves a light page, a dark page, print, and a file of its own. Text stays text.
"""

import inspect
import io
import math
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_atomically, write_json

P = ParamSpec("P")
Number = float | None
End = tuple[float, str, str]  # value, label and colour at the end of a curve

INK, MUTED, RULE, PAGE = "#24292f", "#626b75", "#c4ccd4", "#fffffe"
#: Okabe and Ito's colours, darkened until a label written in them reads well on white.
PALETTE = ("#0069a6", "#b84a00", "#00775a", "#9c4a83", "#856000", "#3f7f93")
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAGE: "page"} | {c: f"c{i}" for i, c in enumerate(PALETTE)}
ROUND = (1, 2, 5, 10)  # tick steps
NARROW, WIDE = 5.0, 10.6  # inches: a phone or half a page; a whole page
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lra",
    "text.parse_math": False,  # a loss term named "$" stays a dollar
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.xmargin": 0.015,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.7,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "image.cmap": "cividis",
} | {
    f"{axis}tick.{key}": value
    for axis in "xy"
    for key, value in {"color": RULE, "labelcolor": MUTED, "major.width": 0.7}.items()
}
DPI = 200
MARGIN = 8
"""Points around a figure that is a file of its own."""
THEMES = """<style>
svg { color-scheme: light dark; background: #ffffff }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; --ink: #e4e8ec; --muted: #9aa4af; --rule: #4a535d; --c0: #56b4e9; --c1: #f08a4b;
    --c2: #2fc39a; --c3: #dd93c2; --c4: #e0b13a; --c5: #8cc5d6 }
}
</style>"""


@dataclass(frozen=True)
class Series:
    """One curve: `y` against `x` (student steps), with an optional band from `low` to `high`."""

    label: str
    x: Sequence[Number]
    y: Sequence[Number]
    low: Sequence[Number] | None = None
    high: Sequence[Number] | None = None


def svg_figure(alt: str) -> Callable[[Callable[P, Figure]], Callable[P, str]]:
    """Turn a function that draws a matplotlib figure into one that returns themed SVG described by `alt`."""

    def decorate(draw: Callable[P, Figure]) -> Callable[P, str]:
        @wraps(draw)
        def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
            with rc_context(STYLE), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a glyph that the measuring font lacks
                return to_svg(draw(*args, **kwargs), draw.__name__.replace("_", "-"), alt)

        return drawn

    return decorate


def to_svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an `<svg>` element that its page sizes and colours."""
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()  # no XML header: it would name an address
    # Several figures share a page: without a prefix of their own their ids would collide.
    prefix = f"{name}-{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    text = re.sub(r' (?:width|height)="[^"]*pt"', "", text, count=2)
    text = re.sub("|".join(VARIABLES), lambda m: f"var(--{VARIABLES[m[0]]}, {m[0]})", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


def clean(text: object, limit: int = 36) -> str:
    """A user's string as a one-line figure label: valid in XML and not wider than a panel."""
    line = re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "�", str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def floats(values: Sequence[Number]) -> NDArray[np.float64]:
    """Numbers as an array, with NaN for whatever is missing or infinite."""
    array = np.array([math.nan if v is None else v for v in values], dtype=float)
    array[~np.isfinite(array)] = math.nan
    return array


def curves(ax: Any, series: Sequence[Series], *, pattern: str = "{:.1f}", extra: Sequence[End] = ()) -> None:
    """Draw `series` and label each at its end with its name and last value, beside `extra` labels."""
    ends = list(extra)
    for index, one in enumerate(series):
        colour = PALETTE[index % len(PALETTE)]
        x, y = floats(one.x), floats(one.y)
        count = np.isfinite(y).sum()
        width, marker = (0.6, None) if count > 500 else (1.5, "o" if count <= 40 else None)
        ax.plot(x, y, color=colour, linewidth=width, marker=marker, markersize=2.4)
        if one.low is not None and one.high is not None:
            ax.fill_between(x, floats(one.low), floats(one.high), color=colour, alpha=0.18, linewidth=0)
        if np.isfinite(y).any():
            last = y[np.isfinite(y)][-1]
            value = pattern.format(last).replace("-", "−")
            ends.append((last, f"{clean(one.label, 22)} {value}".strip(), colour))
    ax.update_datalim([(0, 0)], updatey=False)  # a run starts at step 0
    step_axis(ax.xaxis)
    _label_ends(ax, ends)


def _label_ends(ax: Any, ends: Sequence[End], gap: float = 13.0) -> None:
    """Write labels right of the axes at their values' heights, pushed apart to `gap` points."""
    height = ax.get_window_extent().height * 72 / ax.figure.dpi
    ordered = sorted(ends)
    place = ax.transData + ax.transAxes.inverted()
    ax.autoscale_view()
    heights = [float(place.transform((ax.get_xlim()[1], value))[1]) for value, _, _ in ordered]
    for (_, text, colour), y in zip(ordered, _apart(heights, gap / height), strict=True):
        ax.text(1.015, y, text, color=colour, transform=ax.transAxes, va="center", fontsize=9)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Rising `heights` moved as little as possible (least squares) until neighbours are `gap` apart."""
    blocks: list[list[float]] = []
    for i, height in enumerate(heights):
        blocks.append([height - i * gap])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = [fmean(block) for block in blocks for _ in block]
    return [y + i * gap for i, y in enumerate(level)]


def step_axis(axis: Any, most: int = 5) -> None:
    """Few, round ticks; ten thousand is written 10k."""
    axis.set_major_locator(MaxNLocator(most, integer=True, steps=ROUND))

    def text(value: float, _: object) -> str:
        return f"{value / 1000:,g}k" if value and axis.get_view_interval()[1] >= 1e4 else f"{value:,.0f}"

    axis.set_major_formatter(FuncFormatter(text))


def log_axis(ax: Any) -> None:
    """A logarithmic y axis with ticks at a few decades only."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=4))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def ordinal(set_ticks: Callable[..., Any], steps: Sequence[float], most: int = 7) -> None:
    """Label positions 0, 1, 2 … of an ordinal axis by their steps: at most `most`, the last among them."""
    positions = range(len(steps) - 1, -1, -math.ceil(len(steps) / most))
    set_ticks(positions, [f"{steps[p]:,.0f}" for p in positions])


def epoch_axis(ax: Any, epochs: Sequence[tuple[float, float]]) -> None:
    """Epochs along the top, placed at the step of the evaluation that first reached them."""
    first = {epoch: step for step, epoch in reversed(epochs)}
    if len(first) < 3:
        return
    shown = [e for e in MaxNLocator(6, integer=True).tick_values(min(first), max(first)) if e in first]
    top = ax.secondary_xaxis("top")
    names = [f"epoch {e:.0f}" if e == shown[0] else f"{e:.0f}" for e in shown]
    top.set_xticks([first[e] for e in shown], names)
    top.tick_params(length=2.5, pad=1)
    top.spines["top"].set_visible(False)


def colour_bar(figure: Figure, image: Any, ax: Any, label: str) -> None:
    """A thin colour bar without a frame, titled above so that no text is turned on its side."""
    bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02, aspect=28)
    bar.ax.collections[0].set_rasterized(True)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5, steps=ROUND)
    bar.ax.set_title(label, loc="right", color=MUTED)


def refuse_suffix(file: Path) -> None:
    """Raise `UsageError` for a name that is neither of an SVG nor of a PNG file."""
    if file.suffix not in (".svg", ".png"):
        raise UsageError(f"--figure {file}: the name must end in .svg or .png")


def save_figure(file: Path, draw: Callable[..., str], *content: Any, **options: Any) -> None:
    """Draw ``content`` into an ``.svg`` or ``.png`` file.

    Args:
        file: its suffix says the format.
        draw: one of the functions that `svg_figure` decorates.
        content: its positional arguments.
        options: its keyword arguments.

    Raises:
        UsageError: for another suffix.
    """
    refuse_suffix(file)
    if file.suffix == ".svg":
        drawn = standalone(draw(*content, **options)).encode()
    else:
        with rc_context(STYLE | {"figure.facecolor": "#ffffff"}):
            figure, out = inspect.unwrap(draw)(*content, **options), io.BytesIO()
            figure.set_dpi(DPI)
            FigureCanvasAgg(figure).print_png(out)
            drawn = out.getvalue()
    write_atomically(file, lambda target: target.write(drawn))


def standalone(svg: str) -> str:
    """An inline figure as a file of its own, in both themes."""
    head, body = svg.split(">", 1)
    if "xmlns=" not in head:
        head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    if box:
        width, height = (float(side) + 2 * MARGIN for side in box.groups())
        frame = f'viewBox="{-MARGIN} {-MARGIN} {width} {height}" width="{width}" height="{height}"'
        head = head.replace(box[0], frame)
    return f"{head}>{THEMES}{body}\n"


def write_analysis(out: Path, name: str, record: dict[str, Any], draw: Callable[..., str], *content: Any) -> list[Path]:
    """Write a record and a figure as ``.json``, ``.svg`` and ``.png``; returns the files.

    Args:
        out: folder.
        name: of the files.
        record: the numbers.
        draw: the figure, as `save_figure` takes it.
        content: what it draws.
    """
    files = [out / f"{name}{suffix}" for suffix in (".json", ".svg", ".png")]
    write_json(files[0], record)
    for file in files[1:]:
        save_figure(file, draw, *content)
    return files
