"""Figures of tasks in sequence: one panel for each task, one curve for each way of reuse."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from lra.benchmarks.reports.drawing import WIDE, Number, Series, clean, curves, step_axis, svg_figure
from lra.benchmarks.reports.figures import band
from lra.benchmarks.tasks.task_outcome import TaskRun, modes, names, of

Curve = tuple[Sequence[Number], Sequence[Number]]


@svg_figure("One panel for each task, one curve for each way of reuse")
def task_panels(panels: Mapping[str, Sequence[Series]], measure: str, x_title: str) -> Figure:
    """Panels beneath one another, by the task's name, all of the same measure."""
    figure = Figure((WIDE, 0.5 + 1.9 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for ax, (name, series) in zip(axes, panels.items(), strict=True):
        curves(ax, series, pattern="{:.3g}")
        ax.set_title(clean(f"{name}: {measure}", 80))
        step_axis(ax.xaxis)
    axes[-1].set_xlabel(x_title)
    return figure


def generator_losses(runs: Sequence[TaskRun]) -> dict[str, list[Series]]:
    """Loss of every inner step of synthesis, by task: a curve a mode, mean over seeds and its interval."""
    return _panels(runs, lambda run: (range(1, len(run.generator_loss) + 1), run.generator_loss))


def agreements(runs: Sequence[TaskRun]) -> dict[str, list[Series]]:
    """Agreement with the teacher on the test set over student steps, likewise."""
    return _panels(runs, lambda run: (run.run.column("student_step"), run.run.column("agreement")))


def _panels(runs: Sequence[TaskRun], curve: Callable[[TaskRun], Curve]) -> dict[str, list[Series]]:
    panels = {}
    for name in names(runs):
        found = [band(mode, [curve(run) for run in of(runs, name, mode).values()]) for mode in modes(runs)]
        panels[name] = [series for series in found if series.x]
    return {name: series for name, series in panels.items() if series}
