"""Does a reused generator converge faster? Loss of every inner step of synthesis, anew against each way of reuse."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lra.benchmarks.analyses import write_analysis
from lra.benchmarks.comparison.estimates import estimate, paired
from lra.benchmarks.errors import MissingInput
from lra.benchmarks.tasks.task_report import generator_losses, task_panels
from lra.benchmarks.tasks.task_stream import PART, TaskRun, apart, finished, names


def convergence(folder: Path, out: Path) -> list[Path]:
    """Write ``convergence.json``, ``.svg`` and ``.png`` of the tasks in ``folder``; returns them.

    Raises:
        MissingInput: if no task is finished, or none has the loss of its inner steps.
    """
    runs = finished(folder)
    panels = generator_losses(runs)
    if not panels:
        raise MissingInput(f"no run in {folder} has a generator_loss: that of aeahl-rg has one")
    curves = {name: {one.label: list(one.y) for one in series} for name, series in panels.items()}
    record = {"early": PART, "tasks": _compared(runs), "curves": curves}
    return write_analysis(out, "convergence", record, task_panels, panels, "generator loss", "inner steps of synthesis")


def _compared(runs: Sequence[TaskRun]) -> list[dict[str, Any]]:
    """For each task and mode the mean early loss, and its difference from anew paired by seed."""
    rows: list[dict[str, Any]] = []
    for name in names(runs):
        early = {mode: _early(found) for mode, found in apart(runs, name).items()}
        for mode, values in early.items():
            row: dict[str, Any] = {"task": name, "reuse": mode, "early_loss": vars(estimate(list(values.values())))}
            if "anew" in early and mode != "anew" and (difference := paired(values, early["anew"])) is not None:
                row |= {"minus_anew": vars(difference.estimate), "p": difference.p}
            rows.append(row)
    return rows


def _early(runs: Mapping[int, TaskRun]) -> dict[int, float]:
    """The early loss of each seed that has one."""
    return {seed: run.early_loss for seed, run in runs.items() if run.early_loss is not None}
