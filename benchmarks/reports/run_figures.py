"""The figures of one run, from the records in its folder; those without numbers are left out."""

from itertools import islice
from typing import Any

from lra.benchmarks.records import Record, Run, known, mean, number, numbers, pick, table
from lra.benchmarks.reports import figures
from lra.benchmarks.reports.curves import Series
from lra.benchmarks.reports.drawing import NARROW, WIDE

MOST_CLASSES = 100
MOST_TERMS = 24
STUDENT_LOSSES = {
    "student loss": {"acquisition": "acquisition", "retention": "retention"},
    "new batch": {"acquisition_before": "before", "acquisition_after": "after"},
}
UNITS = {"l1": "mean |Δ logit|", "kl": "nats"}
"""Units of the distances that a student minimises, by their names in ``student.loss.kind``."""


def main_curve(run: Run) -> tuple[bool, Series]:
    """Whether accuracy is tested, or will be, and its curve; without a test set, that of agreement on the probes."""
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
    unit = UNITS.get(str(pick(run.config, "student", "loss", "kind")))
    titles = {title: title + (f" ({unit})" if unit else "") for title in STUDENT_LOSSES}
    student = {titles[title]: _series(run, labels, "losses") for title, labels in STUDENT_LOSSES.items()}
    if any(student.values()):
        drawn["student"] = figures.loss_panels({k: v for k, v in student.items() if v}, columns=1)
    terms = dict.fromkeys(name for row in run.rows for name in pick(row, "synthesis") or {})
    panels = {name: _term(run, name) for name in islice(terms, MOST_TERMS)}
    if any(panels.values()):
        drawn["synthesis"] = figures.loss_panels({k: v for k, v in panels.items() if v})
    if rates := learned_rates(run):
        drawn["rates"] = figures.rates(*rates)
    rows = class_rows(run)[: figures.MOST_NAMES]
    if rows:
        by_class = ([row[key] for row in rows] for key in ("name", "teacher", "student"))
        drawn["by_class"] = figures.class_accuracy(*by_class)
    counts = [known(row) for row in table(run.confusion.get("images"))]
    if len(counts) > 1 and all(len(row) == len(counts) for row in counts):
        names = class_names(run, len(counts)) or [str(place) for place in range(len(counts))]
        drawn["confusion"] = figures.confusion(counts, names)
    if classes := _classes(run):
        drawn["classes"] = figures.class_map(*classes, class_names(run, len(classes[1][0])))
    return drawn


def class_names(run: Run, count: int) -> list[str]:
    """Names of the ``count`` classes; empty if they are not known."""
    names = run.data.get("names")
    fitting = isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
    return names if fitting and names else []


def evolution_title(tested: bool) -> str:
    """What the main curve shows, with a test set and without."""
    return "test accuracy (%)" if tested else "agreement with the teacher on the probes (%)"


def _evolution_options(run: Run, tested: bool) -> dict[str, Any]:
    forgetting = _series(run, {"forgetting": ""})
    epochs = zip(run.column("student_step"), run.column("epoch"), strict=True)
    return {
        "forgetting": forgetting,
        "epochs": [(step, epoch) for step, epoch in epochs if step is not None and epoch is not None],
        "teacher": number(pick(run.result, "teacher", "accuracy")) if tested else None,
        "title": evolution_title(tested),
    }


def _series(run: Run, labels: dict[str, str], *parents: str) -> list[Series]:
    """A curve for each key of `labels` that has any number."""
    found = ((label, run.column(*parents, key)) for key, label in labels.items())
    return [Series(label, run.column("student_step"), y) for label, y in found if known(y)]


def _term(run: Run, name: str) -> list[Series]:
    where = ("synthesis", name)
    return _series(run, {"weighted": ""}, *where) or _series(run, {"raw": "raw"}, *where)


def learned_rates(run: Run) -> tuple[list[float], dict[str, list[float | None]]] | None:
    """Student steps of the evaluations with learned rates, ascending, and the rates there by parameter."""
    rows = [(number(row.get("student_step")), row["alpha"]) for row in run.rows if isinstance(row.get("alpha"), dict)]
    steps: list[float] = []
    kept = []
    for step, rates in rows:
        if step is not None and rates and (not steps or step > steps[-1]):
            steps.append(step)
            kept.append(rates)
    names = dict.fromkeys(name for rates in kept for name in rates)
    # The student is inside a normalising wrapper, whose name says nothing.
    layers = {name.removeprefix("network."): [_positive(rates.get(name)) for rates in kept] for name in names}
    layers = {name: values for name, values in layers.items() if known(values)}
    return (steps, layers) if layers else None


def _positive(value: object) -> float | None:
    found = number(value)
    return found if found is not None and found > 0 else None


def _classes(run: Run) -> tuple[list[float], list[list[float]]] | None:
    """Student steps, ascending, and class counts of the evaluations that have both."""
    steps: list[float] = []
    counts: list[list[float]] = []
    for row in run.rows:
        step, count = number(row.get("student_step")), known(numbers(row.get("classes")))
        if step is not None and count and (not steps or (step > steps[-1] and len(count) == len(counts[0]))):
            steps.append(step)
            counts.append(count)
    return (steps, counts) if steps else None


def class_rows(run: Run) -> list[Record]:
    """For each class: test images, accuracy (%) of teacher and student on them, and its share (%) of generated ones.

    At most `MOST_CLASSES`, those first on which the student lost most; empty without a test set, or before the end.
    """
    stored = run.result.get("by_class")
    images, teacher, student = (numbers(pick(stored, key)) for key in ("images", "teacher", "student"))
    count = len(images)
    if not count or len(teacher) != count or len(student) != count:
        return []
    drawn = [known(numbers(row.get("classes"))) for row in run.rows]
    generated = [sum(column) for column in zip(*(row for row in drawn if len(row) == count), strict=True)]
    whole = sum(generated)
    names = class_names(run, count) or [str(place) for place in range(count)]
    rows = [
        {
            "name": names[place],
            "images": images[place],
            "teacher": teacher[place],
            "student": student[place],
            "difference": _difference(student[place], teacher[place]),
            "share": 100 * generated[place] / whole if whole else None,
        }
        for place in range(count)
    ]
    return sorted(rows, key=lambda row: 0.0 if row["difference"] is None else row["difference"])[:MOST_CLASSES]


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
