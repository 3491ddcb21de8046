"""Configurations as curves: their mean over seeds, with its interval as a band."""

import inspect
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lra.benchmarks.comparison.estimates import interval
from lra.benchmarks.comparison.groups import Group
from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_atomically
from lra.benchmarks.records import Run, known, number, pick
from lra.benchmarks.reports import figures
from lra.benchmarks.reports.drawing import STYLE, Series
from lra.benchmarks.reports.run_figures import main_curve

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


def band(label: str, runs: Sequence[tuple[Sequence[float | None], Sequence[float | None]]]) -> Series:
    """The mean curve of several runs at the steps that all of them have, and its 95 % interval."""
    curves = [{x: y for x, y in zip(xs, ys, strict=True) if x is not None and y is not None} for xs, ys in runs]
    curves = [curve for curve in curves if curve]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    table = np.array([[curve[step] for curve in curves] for step in steps], dtype=np.float64)
    bounds = [interval(values)[:2] for values in table]
    many = len(curves) > 1
    return Series(
        label,
        list(steps),
        [float(values.mean()) for values in table],
        [low for low, _ in bounds] if many else None,
        [high for _, high in bounds] if many else None,
    )


def accuracy_bands(groups: Sequence[Group]) -> list[Series]:
    """Accuracy of each group against student steps; of agreement on probes where there is no test set."""
    found = [band(g.label, [(c.x, c.y) for _, c in map(main_curve, g.runs.values())]) for g in groups]
    return [series for series in found if series.x]


def forgetting_bands(groups: Sequence[Group]) -> list[Series]:
    """Forgetting of probes of each group against student steps."""
    found = [
        band(g.label, [(r.column("student_step"), r.column("forgetting")) for r in g.runs.values()]) for g in groups
    ]
    return [series for series in found if series.x]


def evolution_options(groups: Sequence[Group]) -> tuple[float | None, str]:
    """The teacher's accuracy, if it is one, and the title of the accuracy panel."""
    runs: list[Run] = [run for group in groups for run in group.runs.values()]
    tested = all(main_curve(run)[0] for run in runs)
    teachers = {number(pick(run.result, "teacher", "accuracy")) for run in runs}
    one = known(list(teachers))[0] if tested and len(teachers) == 1 and known(list(teachers)) else None
    return one, "test accuracy (%)" if tested else "agreement with the teacher on the probes (%)"


def write_figure(groups: Sequence[Group], file: Path) -> None:
    """Draw accuracy and forgetting of all groups into an ``.svg`` or ``.png`` file.

    Raises:
        UsageError: for another suffix, or if nothing can be drawn.
    """
    if file.suffix not in (".svg", ".png"):
        raise UsageError(f"--figure {file}: the name must end in .svg or .png")
    accuracy = accuracy_bands(groups)
    if not accuracy:
        raise UsageError("--figure: no run has an accuracy curve to draw")
    teacher, title = evolution_options(groups)
    options: dict[str, Any] = {"forgetting": forgetting_bands(groups), "teacher": teacher, "title": title}
    if file.suffix == ".svg":
        content = standalone(figures.evolution(accuracy, **options)).encode()
    else:
        with rc_context(STYLE | {"figure.facecolor": "#ffffff"}):
            drawn, out = inspect.unwrap(figures.evolution)(accuracy, **options), io.BytesIO()
            drawn.set_dpi(DPI)
            FigureCanvasAgg(drawn).print_png(out)
            content = out.getvalue()
    write_atomically(file, lambda target: target.write(content))


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
