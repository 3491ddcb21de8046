"""Configurations as curves: their mean over seeds, with its interval as a band."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lra.benchmarks.comparison.estimates import interval
from lra.benchmarks.comparison.groups import Group
from lra.benchmarks.errors import UsageError
from lra.benchmarks.records import Run, number, pick
from lra.benchmarks.reports import figures
from lra.benchmarks.reports.drawing import Series
from lra.benchmarks.reports.figure_file import refuse_suffix, write
from lra.benchmarks.reports.run_figures import main_curve


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
    one = tested and len(teachers) == 1
    return (
        teachers.pop() if one else None,
        "test accuracy (%)" if tested else "agreement with the teacher on the probes (%)",
    )


def write_figure(groups: Sequence[Group], file: Path) -> None:
    """Draw accuracy and forgetting of all groups into an ``.svg`` or ``.png`` file.

    Raises:
        UsageError: for another suffix, or if nothing can be drawn.
    """
    refuse_suffix(file)
    accuracy = accuracy_bands(groups)
    if not accuracy:
        raise UsageError("--figure: no run has an accuracy curve to draw")
    teacher, title = evolution_options(groups)
    options: dict[str, Any] = {"forgetting": forgetting_bands(groups), "teacher": teacher, "title": title}
    write(file, figures.evolution, accuracy, **options)
