"""Figures as files of their own: SVG in a light and a dark theme, or PNG."""

import inspect
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_atomically
from lra.benchmarks.reports.drawing import STYLE

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


def refuse_suffix(file: Path) -> None:
    """Raise `UsageError` for a name that is neither of an SVG nor of a PNG file."""
    if file.suffix not in (".svg", ".png"):
        raise UsageError(f"--figure {file}: the name must end in .svg or .png")


def write(file: Path, draw: Callable[..., str], *content: Any, **options: Any) -> None:
    """Draw ``content`` into an ``.svg`` or ``.png`` file.

    Args:
        file: its suffix says the format.
        draw: one of the functions that `lra.benchmarks.reports.drawing.svg_figure` decorates.
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
