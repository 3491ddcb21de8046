"""The report across tasks: the result of each, how soon it was reached, what the generator retains of earlier tasks.

Figures have one panel for each task and one curve for each way of reuse. What the generator retains of a task is told
by how surely that task's teacher still recognises its images; asking the teachers takes torch and seconds, so their
answers are read back as long as the generators are the same. Whether a reused generator converges faster is shown too:
by the loss at every inner step of synthesis, anew against each way of reuse.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from pydantic import BaseModel

from lra.benchmarks.comparison.estimates import estimate, paired
from lra.benchmarks.comparison.groups import TASK_RECORD, task_record
from lra.benchmarks.errors import MissingInput
from lra.benchmarks.files import sha256, write_json, write_text
from lra.benchmarks.records import GENERATOR, known
from lra.benchmarks.reports.curves import LINE, Curve, Series, band, curves, label_ends, lines
from lra.benchmarks.reports.drawing import NARROW, WIDE, clean, save_figure, svg_figure, write_analysis
from lra.benchmarks.reports.report import templates
from lra.benchmarks.tasks.chains import PART, SHARE, TaskRun, apart, finished, modes, names, of
from lra.benchmarks.text import markdown_table
from lra.metrics.quantities import ANY, NOT_NEGATIVE, PERCENT, Bounds

if TYPE_CHECKING:
    from torch import Tensor, nn


class Measure(NamedTuple):
    """A number that is shown for a task, and the bounds it lies within."""

    of: Callable[[TaskRun], float | None]
    within: Bounds = ANY


MEASURES: Mapping[str, Measure] = {
    "accuracy (%)": Measure(lambda run: run.accuracy, PERCENT),
    "agreement (%)": Measure(lambda run: run.agreement, PERCENT),
    f"student steps to {SHARE:.0%} of it": Measure(lambda run: run.student_steps, NOT_NEGATIVE),
    "seconds to it": Measure(lambda run: run.seconds, NOT_NEGATIVE),
    f"generator loss, first {PART} steps": Measure(lambda run: run.early_loss),
    f"last {PART}": Measure(lambda run: run.late_loss),
}


def write_task_report(folder: Path) -> Path:
    """Write ``report.html``, ``report.md``, ``report.json`` and up to two figures into the folder of tasks.

    Returns:
        the page.

    Raises:
        LraError: if no task is finished, or a file of one is damaged.
    """
    runs = finished(folder)
    kept = recognitions(runs, folder / "report.json")
    drawn = {}
    for name, panels, measure, x_title in (
        ("generator-loss", generator_losses(runs), "generator loss", "inner steps of synthesis"),
        ("agreement", agreements(runs), "agreement with the teacher (%)", "student steps"),
    ):
        if panels:
            sizes = {"wide": WIDE, "narrow": NARROW}
            drawn[measure] = {name: task_panels(panels, measure, x_title, width) for name, width in sizes.items()}
            for suffix in (".svg", ".png"):
                save_figure(folder / (name + suffix), task_panels, panels, measure, x_title)
    write_json(folder / "report.json", _record(runs, kept))
    tables = _tables(runs, kept.recognition)
    parts = [part for title, head, rows, words in tables for part in (title, markdown_table(head, rows, (0, 1)), words)]
    write_text(folder / "report.md", "\n\n".join(["# Tasks in sequence", *filter(None, parts)]) + "\n")
    chains = task_record(folder)["chains"] if (folder / TASK_RECORD).is_file() else []
    failed = [
        (chain["reuse"], chain["seed"], task["name"], task.get("reason", ""))
        for chain in chains
        for task in chain["tasks"]
        if task["status"] == "failed"
    ]
    page = templates().get_template("tasks.html")
    shown = page.render(name=folder.resolve().name, tables=tables, figures=drawn, failed=failed)
    write_text(folder / "report.html", shown.encode("utf-8", "replace").decode())
    return folder / "report.html"


def told(folder: Path, record: Mapping[str, Any] | None = None) -> str:
    """What is printed once the report is written: its tables or, with a ``record``, that and its numbers as JSON."""
    if record is not None:
        return json.dumps({**record, **json.loads((folder / "report.json").read_text())})
    return f"{(folder / 'report.md').read_text()}\nreport      {folder / 'report.html'}"


def _record(runs: Sequence[TaskRun], kept: Recognitions) -> dict[str, Any]:
    rows = [
        {"task": run.name, "reuse": run.reuse, "seed": run.seed}
        | {k: measure.of(run) for k, measure in MEASURES.items()}
        for run in runs
    ]
    asked = {mode: [[r._asdict() for r in chain] for chain in chains] for mode, chains in kept.recognition.items()}
    return {"runs": rows, "generators": kept.generators, "recognition": asked}


Table = tuple[str, Sequence[str], Sequence[Sequence[str]], str]
"""Title in Markdown, heads, rows, and the text beneath."""


def _tables(runs: Sequence[TaskRun], answers: Mapping[str, Sequence[Sequence[Recognition]]]) -> list[Table]:
    rows = [
        [
            name,
            mode,
            str(len(found)),
            *(interval_text([m.of(run) for run in found.values()], m.within) for m in MEASURES.values()),
        ]
        for name in names(runs)
        for mode, found in apart(runs, name).items()
    ]
    tables: list[Table] = [("", ["task", "reuse", "seeds", *MEASURES], rows, "Means over seeds with 95 % intervals.")]
    if rows := _asked_again(runs, answers):
        tables.append(("## What the old teachers recognise", RECOGNISED, rows, EXPLAINED))
    return tables


EXPLAINED = (
    "Confidence (%) is that of a task's teacher in the generator's images, in evaluation mode and from the same "
    "latents, at the end of the task and after the last task; forgetting is the highest confidence after any earlier "
    "task minus the last. Classes is the effective number of classes that the teacher sees, exp of the entropy of its "
    "mean prediction. Generators are not shown to teachers of images of another size."
)


RECOGNISED = (
    "teacher of",
    "reuse",
    "confidence at its end",
    "after the last task",
    "forgetting",
    "classes at its end",
    "classes after the last task",
)


def _asked_again(runs: Sequence[TaskRun], answers: Mapping[str, Sequence[Sequence[Recognition]]]) -> list[list[str]]:
    """Rows under `RECOGNISED`, of teachers that were asked again after a later task."""
    rows = []
    for of_, name in enumerate(names(runs)):
        for mode, chains in answers.items():
            seen = [own for chain in chains if len(own := [r for r in chain if r.of == of_]) > 1]
            if seen:
                lost = [max(r.confidence for r in own[:-1]) - own[-1].confidence for own in seen]
                first, last = [own[0] for own in seen], [own[-1] for own in seen]
                confidence = [interval_text([r.confidence for r in ends], PERCENT) for ends in (first, last)]
                classes = [interval_text([r.classes for r in ends], NOT_NEGATIVE) for ends in (first, last)]
                rows.append([name, mode, *confidence, interval_text(lost), *classes])
    return rows


def interval_text(values: Sequence[float | None], within: Bounds = ANY) -> str:
    """Mean of the known ``values`` and its 95 % interval, which stays ``within`` these bounds."""
    there = known(values)
    if not there:
        return "—"
    found = estimate(there, within)
    text = f"{found.mean:.4g}"
    return text if found.low is None or found.high is None else f"{text} [{found.low:.4g}, {found.high:.4g}]"


@svg_figure("One panel for each task, one curve for each way of reuse")
def task_panels(panels: Mapping[str, Sequence[Series]], measure: str, x_title: str, width: float = WIDE) -> Figure:
    """Panels below one another, one for each task, all of the same measure; the width is in inches."""
    figure = Figure((width, 1), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    labels = []
    for ax, (name, series) in zip(axes, panels.items(), strict=True):
        labels.append((ax, curves(ax, series, pattern="{:.3g}")))
        ax.set_title(clean(f"{name}: {measure}", 60))
    axes[-1].set_xlabel(x_title)
    height = max(1.5, *(lines(ends) * LINE / 72 for _, ends in labels))
    figure.set_figheight(0.5 + (height + 0.4) * len(panels))
    label_ends(figure, *labels)
    return figure


def generator_losses(runs: Sequence[TaskRun]) -> dict[str, list[Series]]:
    """Loss at every inner step of synthesis, by task: a curve for each mode, the mean over seeds with its interval."""
    return _panels(runs, lambda run: (range(1, len(run.generator_loss) + 1), run.generator_loss))


def agreements(runs: Sequence[TaskRun]) -> dict[str, list[Series]]:
    """Agreement (%) with the teacher on the test set against student steps, likewise."""
    return _panels(runs, lambda run: (run.run.column("student_step"), run.run.column("agreement")), PERCENT)


def _panels(
    runs: Sequence[TaskRun], curve: Callable[[TaskRun], Curve], within: Bounds = ANY
) -> dict[str, list[Series]]:
    panels = {}
    for name in names(runs):
        found = [band(mode, [curve(run) for run in of(runs, name, mode).values()], within) for mode in modes(runs)]
        panels[name] = [series for series in found if series.x]
    return {name: series for name, series in panels.items() if series}


PROBE = 256
"""Images per probe."""


class Recognition(NamedTuple):
    """How sure the teacher of task ``of`` is of the generator's images after task ``after``; tasks count from 0."""

    after: int
    of: int
    confidence: float
    """Mean of the largest probability, in percent."""
    classes: float
    """exp of the entropy of the mean prediction: how many classes it sees, 1 to K."""


class Recognitions(BaseModel):
    """The recognitions that a report across tasks keeps."""

    generators: str = ""
    """Digest of the generators of all tasks, whose files name the teachers too; empty if one left none."""
    recognition: dict[str, list[list[Recognition]]] = {}
    """By mode, one list for each seed; empty for a method whose generator does not last."""


def recognitions(runs: Sequence[TaskRun], report: Path) -> Recognitions:
    """What earlier teachers recognise in the chains of ``runs``; from a ``report``, if it is of the same generators.

    Raises:
        LraError: if the teachers have to be asked and one, or its data, is missing.
    """
    chains = {mode: _chains([run for run in runs if run.reuse == mode]) for mode in modes(runs)}
    files = [[[run.run.folder / GENERATOR for run in chain] for chain in found] for found in chains.values()]
    if not all(file.is_file() for found in files for chain in found for file in chain):
        return Recognitions()
    digests = {mode: [list(map(sha256, chain)) for chain in found] for mode, found in zip(chains, files, strict=True)}
    generators = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    try:
        before = Recognitions.model_validate_json(report.read_bytes())
    except (OSError, ValueError):  # There is no report, or a damaged one.
        before = Recognitions()
    if before.generators == generators:
        return before
    from lra.benchmarks.runs.rebuilding import NoGenerator

    try:
        answers = {mode: list(map(recognition, found)) for mode, found in chains.items()}
    except NoGenerator:
        answers = {}
    return Recognitions(generators=generators, recognition=answers)


def _chains(runs: Sequence[TaskRun]) -> list[list[TaskRun]]:
    """The runs of each seed."""
    return [[run for run in runs if run.seed == seed] for seed in dict.fromkeys(run.seed for run in runs)]


def recognition(chain: Sequence[TaskRun]) -> list[Recognition]:
    """For each task, how its teacher and earlier ones answer to its generator's images, if theirs are of the same size.

    The latents are the same each time, the generator in evaluation mode.

    Raises:
        LraError: if a teacher or its data are missing, or a generator does not take latents.
    """
    import torch

    from lra.benchmarks.runs.rebuilding import latent_generator, rebuilt

    teachers: list[tuple[int, tuple[int, int, int], nn.Module]] = []
    found: list[Recognition] = []
    for task in sorted(chain, key=lambda run: run.index):
        parts = rebuilt(task.run.folder)
        generator, latent = latent_generator(parts)
        teachers.append((task.index, parts.data.image, parts.teacher.network))
        latents = torch.randn(PROBE, latent, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            images = generator(latents)
        for first, image, teacher in teachers:
            if image == parts.data.image:
                found.append(Recognition(task.index, first, *answers(teacher, images)))
    return found


def answers(teacher: nn.Module, images: Tensor) -> tuple[float, float]:
    """Mean confidence in percent, and the effective number of classes, of a teacher on images (n, C, H, W)."""
    import torch

    with torch.no_grad():
        p = teacher(images).softmax(dim=1)
    mean = p.mean(dim=0)
    entropy = -(mean * mean.clamp_min(1e-12).log()).sum()
    return 100 * p.max(dim=1).values.mean().item(), entropy.exp().item()


def convergence(folder: Path, out: Path) -> list[Path]:
    """Write ``convergence.json``, ``.svg`` and ``.png`` of the tasks in ``folder``; return the files.

    Raises:
        MissingInput: if no task is finished, or none has the loss of its inner steps.
    """
    runs = finished(folder)
    panels = generator_losses(runs)
    if not panels:
        raise MissingInput(f"no run in {folder} has a generator_loss: runs of aeahl-rg have one")
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
