"""Which numbers of a run go into which figure."""

from itertools import islice
from typing import Any

from lra.benchmarks.records import Run, known, mean, number, numbers, pick, table
from lra.benchmarks.reports import figures
from lra.benchmarks.reports.figures import NARROW, WIDE, Series

MOST_TERMS = 24
STUDENT_LOSSES = {
    "student loss": {"acquisition": "acquisition", "retention": "retention"},
    "new batch": {"acquisition_before": "before", "acquisition_after": "after"},
}


def main_curve(run: Run) -> tuple[bool, Series]:
    """Whether accuracy on a test set is what there is, or would be, and its curve; else agreement on the probes."""
    steps, accuracy = run.column("student_step"), run.column("accuracy")
    stored = table(pick(run.result, "accuracy", "curve"))
    if not any(v is not None for v in accuracy) and stored and len(stored[0]) == 2:
        steps, accuracy = [point[0] for point in stored], [point[1] for point in stored]
    if any(v is not None for v in accuracy) or pick(run.result, "accuracy"):
        return True, Series("student", steps, accuracy)
    if not run.evaluated and not run.untested:
        return True, Series("student", [], [])
    probes = [mean(numbers(pick(row, "probes", "agreement"))) for row in run.rows]
    if not any(v is not None for v in probes):
        probes = run.column("agreement")
    return False, Series("student", steps, probes)


def run_figures(run: Run, tested: bool, curve: Series) -> dict[str, str]:
    """Every figure for which the run has numbers, as SVG."""
    drawn: dict[str, str] = {}
    if any(v is not None for v in curve.y):
        options = _evolution_options(run, tested)
        drawn["evolution_wide"] = figures.evolution([curve], width=WIDE, **options)
        drawn["evolution_narrow"] = figures.evolution([curve], width=NARROW, **options)
    agreement = table(run.matrix.get("agreement"))
    checkpoints, probes = (known(numbers(run.matrix.get(key))) for key in ("checkpoints", "probes"))
    if agreement and len(agreement) == len(checkpoints) and len(agreement[0]) == len(probes) > 0:
        drawn["forgetting"] = figures.forgetting_map(checkpoints, probes, agreement)
    if series := _series(run, {"alignment": ""}):
        drawn["alignment"] = figures.alignment(series)
    student = {title: _series(run, labels, "losses") for title, labels in STUDENT_LOSSES.items()}
    if any(student.values()):
        drawn["student"] = figures.loss_panels({k: v for k, v in student.items() if v}, columns=1)
    terms = dict.fromkeys(name for row in run.rows for name in pick(row, "synthesis") or {})
    panels = {name: _term(run, name) for name in islice(terms, MOST_TERMS)}
    if any(panels.values()):
        drawn["synthesis"] = figures.loss_panels({k: v for k, v in panels.items() if v})
    if classes := _classes(run):
        drawn["classes"] = figures.class_map(*classes, class_names(run, len(classes[1][0])))
    return drawn


def class_names(run: Run, count: int) -> list[str]:
    """What ``count`` classes are called; empty where that is not known."""
    names = run.data.get("names")
    fitting = isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
    return names if fitting and names else []


def _evolution_options(run: Run, tested: bool) -> dict[str, Any]:
    forgetting = _series(run, {"forgetting": ""})
    epochs = zip(run.column("student_step"), run.column("epoch"), strict=True)
    return {
        "forgetting": forgetting,
        "epochs": [(step, epoch) for step, epoch in epochs if step is not None and epoch is not None],
        "teacher": number(pick(run.result, "teacher", "accuracy")) if tested else None,
        "title": "test accuracy (%)" if tested else "agreement with the teacher on the probes (%)",
    }


def _series(run: Run, labels: dict[str, str], *parents: str) -> list[Series]:
    """A curve for each key of `labels` that has any number."""
    found = ((label, run.column(*parents, key)) for key, label in labels.items())
    return [Series(label, run.column("student_step"), y) for label, y in found if known(y)]


def _term(run: Run, name: str) -> list[Series]:
    where = ("synthesis", name)
    return _series(run, {"weighted": ""}, *where) or _series(run, {"raw": "raw"}, *where)


def _classes(run: Run) -> tuple[list[float], list[list[float]]] | None:
    """Student steps and class counts of the evaluations that have both, steps rising."""
    steps: list[float] = []
    counts: list[list[float]] = []
    for row in run.rows:
        step, count = number(row.get("student_step")), known(numbers(row.get("classes")))
        if step is not None and count and (not steps or (step > steps[-1] and len(count) == len(counts[0]))):
            steps.append(step)
            counts.append(count)
    return (steps, counts) if steps else None
