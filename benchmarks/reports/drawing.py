"""What all figures share: colours, themed SVG text, axes, and saving to files.

Colours are written as CSS variables with the light theme as fallback (``var(--ink, #24292f)``), so that one
drawing serves a light page, a dark page, print, and a standalone file. Text stays text.
"""

import inspect
import io
import math
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, ParamSpec

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_atomically, write_json

P = ParamSpec("P")

INK, MUTED, RULE, PAGE = "#24292f", "#626b75", "#c4ccd4", "#fffffe"
PALETTE = ("#0068d0", "#842c00", "#008062", "#c03a9c", "#967000", "#1c2026")
"""Okabe and Ito's hues, in shades that read well on white and that colour-blind readers can tell apart."""
DARK = ("#4a9df5", "#d2723c", "#35e0a8", "#f0509f", "#ffd24a", "#f4f6f8")
"""The same for a dark page."""
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
"""Margin of a standalone figure, in points."""


def custom_properties(palette: Sequence[str]) -> str:
    """The colours of curves as CSS variables."""
    return " ".join(f"--c{index}: {colour};" for index, colour in enumerate(palette))


THEMES = f"""<style>
svg {{ color-scheme: light dark; background: #ffffff }}
@media (prefers-color-scheme: dark) {{
  svg {{ background: #0d1117; --ink: #e4e8ec; --muted: #9aa4af; --rule: #4a535d; {custom_properties(DARK)} }}
}}
</style>"""


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
    """A user's string as a one-line figure label: valid in XML, at most ``limit`` characters."""
    line = re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "�", str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def log_axis(ax: Any) -> None:
    """A logarithmic y axis with ticks at a few decades only."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=4))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def ordinal(set_ticks: Callable[..., Any], steps: Sequence[float], most: int = 7) -> None:
    """Label positions 0, 1, 2 … of an ordinal axis by their steps: at most `most`, including the last."""
    positions = range(len(steps) - 1, -1, -math.ceil(len(steps) / most))
    set_ticks(positions, [f"{steps[p]:,.0f}" for p in positions])


def colour_bar(figure: Figure, image: Any, ax: Any, label: str) -> Any:
    """Add and return a thin colour bar without a frame, titled above so that no text is rotated."""
    bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02, aspect=28)
    bar.ax.collections[0].set_rasterized(True)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5, steps=ROUND)
    bar.ax.set_title(label, loc="right", color=MUTED)
    return bar


def refuse_suffix(file: Path) -> None:
    """Raise `UsageError` unless the name of the file ends in ``.svg`` or ``.png``."""
    if file.suffix not in (".svg", ".png"):
        raise UsageError(f"--figure {file}: the name must end in .svg or .png")


def save_figure(file: Path, draw: Callable[..., str], *content: Any, **options: Any) -> None:
    """Draw ``content`` into an ``.svg`` or ``.png`` file.

    Args:
        file: its suffix determines the format.
        draw: a function decorated by `svg_figure`.
        content: positional arguments of ``draw``.
        options: keyword arguments of ``draw``.

    Raises:
        UsageError: for another suffix, or if the file cannot be written.
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
    """An inline figure as the text of a standalone file, with both themes."""
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
    """Write a record and a figure as ``.json``, ``.svg`` and ``.png``; return the files.

    Args:
        out: folder.
        name: of the files, without suffix.
        record: the numbers.
        draw: the figure, as `save_figure` takes it.
        content: what ``draw`` draws.
    """
    files = [out / f"{name}{suffix}" for suffix in (".json", ".svg", ".png")]
    write_json(files[0], record)
    for file in files[1:]:
        save_figure(file, draw, *content)
    return files
