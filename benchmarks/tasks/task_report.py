"""The report across tasks: what each came to, how soon, and what is left of the first ones in the generator."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lra.benchmarks.comparison.estimates import estimate
from lra.benchmarks.files import write_json, write_text
from lra.benchmarks.records import known
from lra.benchmarks.reports.drawing import save_figure
from lra.benchmarks.tasks.recognition import Recognition, Recognitions, recognitions
from lra.benchmarks.tasks.task_figures import agreements, generator_losses, task_panels
from lra.benchmarks.tasks.task_outcome import PART, SHARE, TaskRun, apart, finished, names
from lra.benchmarks.text import markdown_table

MEASURES: Mapping[str, Callable[[TaskRun], float | None]] = {
    "accuracy (%)": lambda run: run.accuracy,
    "agreement (%)": lambda run: run.agreement,
    f"student steps to {SHARE:.0%} of it": lambda run: run.student_steps,
    "seconds to it": lambda run: run.seconds,
    f"generator loss, first {PART} steps": lambda run: run.early_loss,
    f"last {PART}": lambda run: run.late_loss,
}


def write_task_report(folder: Path) -> Path:
    """Write ``report.md``, ``report.json`` and two figures into the folder of tasks; returns the page.

    Raises:
        LraError: if no task is finished, or something of one is damaged.
    """
    runs = finished(folder)
    kept = recognitions(runs, folder / "report.json")
    for name, panels, measure, x_title in (
        ("generator-loss", generator_losses(runs), "generator loss", "inner steps of synthesis"),
        ("agreement", agreements(runs), "agreement with the teacher (%)", "student steps"),
    ):
        if panels:
            for suffix in (".svg", ".png"):
                save_figure(folder / (name + suffix), task_panels, panels, measure, x_title)
    write_json(folder / "report.json", _record(runs, kept))
    write_text(folder / "report.md", _page(runs, kept.recognition))
    return folder / "report.md"


def _record(runs: Sequence[TaskRun], kept: Recognitions) -> dict[str, Any]:
    rows = [
        {"task": run.name, "reuse": run.reuse, "seed": run.seed} | {k: value(run) for k, value in MEASURES.items()}
        for run in runs
    ]
    asked = {mode: [[r._asdict() for r in chain] for chain in chains] for mode, chains in kept.recognition.items()}
    return {"runs": rows, "generators": kept.generators, "recognition": asked}


def _page(runs: Sequence[TaskRun], recognised: Mapping[str, Sequence[Sequence[Recognition]]]) -> str:
    head = ["task", "reuse", "seeds", *MEASURES]
    rows = [
        [name, mode, str(len(found)), *(_text([value(run) for run in found.values()]) for value in MEASURES.values())]
        for name in names(runs)
        for mode, found in apart(runs, name).items()
    ]
    parts = ["# Tasks in sequence", _table(head, rows), "Means over seeds with 95 % intervals."]
    if rows := _recognised(runs, recognised):
        parts += ["## What the old teachers recognise", _table(RECOGNISED, rows), EXPLAINED]
    return "\n\n".join(parts) + "\n"


EXPLAINED = (
    "Confidence (%) of a task's teacher in what the generator makes, in evaluation mode and of the same latents, when "
    "the task had just ended and after the last task; forgetting is the best of it at any earlier end minus the last. "
    "Classes is how many the teacher sees, exp of the entropy of its mean prediction. Generators of "
    "images of another size than a teacher's are not shown to it."
)


RECOGNISED = ("teacher of", "reuse", "confidence at its end", "after the last task", "forgetting", "classes", "at last")


def _recognised(runs: Sequence[TaskRun], recognised: Mapping[str, Sequence[Sequence[Recognition]]]) -> list[list[str]]:
    """Rows under `RECOGNISED`, of teachers that were asked again after a later task."""
    rows = []
    for of_, name in enumerate(names(runs)):
        for mode, chains in recognised.items():
            seen = [own for chain in chains if len(own := [r for r in chain if r.of == of_]) > 1]
            if seen:
                lost = [max(r.confidence for r in own[:-1]) - own[-1].confidence for own in seen]
                first, last = [own[0] for own in seen], [own[-1] for own in seen]
                found = [[r.confidence for r in first], [r.confidence for r in last], lost]
                found += [[r.classes for r in first], [r.classes for r in last]]
                rows.append([name, mode, *map(_text, found)])
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(head, rows, words=(0, 1))


def _text(values: Sequence[float | None]) -> str:
    there = known(values)
    if not there:
        return "—"
    found = estimate(there)
    text = f"{found.mean:.4g}"
    return text if found.low is None or found.high is None else f"{text} [{found.low:.4g}, {found.high:.4g}]"
