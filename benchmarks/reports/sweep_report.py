"""The report of many runs, a self-contained page, and the figures of a comparison as files.

It depends on the folders alone, like the report of one run; the text is in ``templates/sweep.html``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lra.benchmarks.comparison.compare import Comparison, Row, compare
from lra.benchmarks.comparison.estimates import FEWEST, Estimate
from lra.benchmarks.comparison.groups import Group, run_folders, sweep_record
from lra.benchmarks.comparison.tables import cells
from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.records import SAMPLES, Record, Run, known, number, numbers, pick, table
from lra.benchmarks.reports import figures
from lra.benchmarks.reports.curves import Series, band
from lra.benchmarks.reports.drawing import NARROW, WIDE, refuse_suffix, save_figure
from lra.benchmarks.reports.figures import Point, Ranked
from lra.benchmarks.reports.report import filled, sample_pictures, write_page
from lra.benchmarks.reports.run_figures import evolution_title, main_curve
from lra.metrics.quantities import PERCENT, QUANTITIES

COSTS = ("processor_seconds", "seconds", "teacher_queries")
"""Costs that accuracy is drawn against, the preferred first; the first two are times."""
TOGETHER = 8
"""Most configurations in one figure of curves."""


def write_sweep_report(folder: Path) -> Path:
    """Write ``report.html`` into a sweep's folder, or any folder with runs, and return its path.

    For a sweep without a finished run, it says which runs failed, and why.

    Raises:
        MissingInput: if no run is finished, and none is known to have failed.
        UsageError: if a file is damaged, or the page cannot be written.
    """
    try:
        page = render(folder)
    except MissingInput:
        runs = sweep_record(folder / "sweep.json")["runs"] if (folder / "sweep.json").is_file() else []
        failed = [run for run in runs if run.get("status") == "failed"]
        if not failed:
            raise
        page = filled("failed.html", name=folder.resolve().name, runs=len(runs), failed=failed)
    return write_page(folder, page)


def render(folder: Path) -> str:
    """The report of the runs in ``folder`` as HTML."""
    found = compare([folder], allow_different=True)
    record = sweep_record(folder / "sweep.json") if (folder / "sweep.json").is_file() else {}
    order = _ranked_rows(found)
    head, *rows = cells(found)
    return filled(
        "sweep.html",
        name=folder.resolve().name,
        comparison=found,
        runs=sum(row.seeds for row in found.rows),
        unfinished=len(run_folders([folder])) - sum(row.seeds for row in found.rows),
        stopped=[(row.group.label, seed, run.stopped) for row, seed, run in _runs(found) if run.stopped],
        failed=[run for run in record.get("runs", []) if run.get("status") == "failed"],
        grid=record.get("grid"),
        first=next(iter(found.columns.values())),
        best=order[0],
        teacher=evolution_options(found.groups)[0],
        forgetting=QUANTITIES["forgetting"],
        head=head,
        rows=rows,
        figure=_figures(found, order),
        maps=_maps(found.groups),
        samples=_samples(found.groups),
        differing=_differing(found.groups),
        shared=_shared(found.groups),
    )


def _runs(found: Comparison) -> Iterator[tuple[Row, int, Run]]:
    return ((row, seed, run) for row in found.rows for seed, run in sorted(row.group.runs.items()))


def _ranked_rows(found: Comparison) -> list[tuple[int, Row]]:
    """Rows with their place in the ranking by the first column, the best first."""
    name, column = next(iter(found.columns.items()))
    measured = [row for row in found.rows if name in row.estimates]
    ordered = sorted(measured, key=lambda row: row.estimates[name].mean, reverse=column.better >= 0)
    return list(enumerate(ordered, start=1))


def _figures(found: Comparison, order: Sequence[tuple[int, Row]]) -> dict[str, Any]:
    name, column = next(iter(found.columns.items()))
    count = len(found.rows)
    many = math.ceil(count / math.ceil(count / TOGETHER))
    drawn: dict[str, Any] = {
        "evolution": [_evolution(found.groups[first : first + many], first) for first in range(0, count, many)]
    }
    ranked = [_ranked(place, row, found, row.estimates[name]) for place, row in order]
    drawn["ranking"] = figures.ranking(ranked, column.heading)
    if points := _points(found, order, "tail_variance", "tail_mean"):
        titles = (found.columns[name].heading for name in ("tail_variance", "tail_mean"))
        drawn["spread"] = figures.scatter(points, *titles)
    time = next((cost for cost in COSTS[:2] if cost in found.columns), None)
    for key, cost in (("seconds", time), ("teacher_queries", "teacher_queries")):
        points = [] if cost is None else _points(found, order, cost, name)
        if cost is not None and len({value for point in points for value in point.x}) > 1:
            drawn[key] = figures.frontier(points, found.columns[cost].heading, column.heading, column.better)
    return drawn


def _evolution(groups: Sequence[Group], first: int) -> dict[str, str]:
    accuracy, forgetting = accuracy_bands(groups, first), forgetting_bands(groups, first)
    teacher, title = evolution_options(groups)
    return {
        size: figures.evolution(accuracy, forgetting=forgetting, teacher=teacher, title=title, width=width)
        for size, width in (("wide", WIDE), ("narrow", NARROW))
    }


def _ranked(place: int, row: Row, found: Comparison, e: Estimate) -> Ranked:
    values = row.group.values(next(iter(found.columns.values())))
    low, high = (e.mean if bound is None or e.n < FEWEST else bound for bound in (e.low, e.high))
    return Ranked(place, row.group.label, found.rows.index(row), e.mean, low, high, list(values.values()))


def _points(found: Comparison, order: Sequence[tuple[int, Row]], x: str, y: str) -> list[Point]:
    if x not in found.columns or y not in found.columns:
        return []
    points = []
    for place, row in order:
        xs, ys = (row.group.values(found.columns[name]) for name in (x, y))
        both = sorted(xs.keys() & ys.keys())
        if both:
            points.append(Point(place, found.rows.index(row), [xs[seed] for seed in both], [ys[seed] for seed in both]))
    return points


def _maps(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Label and forgetting map of each group: the mean over runs with the checkpoints and probes of its first."""
    found: list[tuple[str, str]] = []
    for group in groups:
        runs = [run.matrix for run in group.runs.values()]
        axes = [[known(numbers(matrix.get(key))) for key in ("checkpoints", "probes")] for matrix in runs]
        tables = [table(m.get("agreement")) for m, same in zip(runs, axes, strict=True) if same == axes[0]]
        checkpoints, probes = axes[0]
        sound = [t for t in tables if len(t) == len(checkpoints) and t and len(t[0]) == len(probes) > 0]
        if sound:
            mean = np.array(sound, dtype=np.float64).mean(axis=0)
            drawn = figures.forgetting_map(checkpoints, probes, mean.tolist())
            # Equal maps have equal ids, and a page may use an id only once.
            found.append((group.label, drawn.replace("forgetting-map-", f"forgetting-map-{len(found)}-")))
    return found


def _samples(groups: Sequence[Group]) -> list[tuple[str, list[Record]]]:
    """Label of each group, and the first and last strip of samples of its first seed."""
    strips = [(g.label, sample_pictures(g.runs[min(g.runs)].folder / SAMPLES)) for g in groups]
    return [(label, [pictures[0], pictures[-1]][-len(pictures) :]) for label, pictures in strips if pictures]


def _differing(groups: Sequence[Group]) -> tuple[list[str], list[tuple[str, list[object]]]]:
    """The settings that differ between groups, and each group's values of them."""
    keys = [key for key in _keys(groups) if not _same(key, groups)]
    return keys, [(g.label, [g.settings.get(key) for key in keys]) for g in groups]


def _shared(groups: Sequence[Group]) -> Record:
    """The settings that are the same in all groups."""
    return {key: groups[0].settings.get(key) for key in _keys(groups) if _same(key, groups)}


def _keys(groups: Sequence[Group]) -> dict[str, None]:
    return dict.fromkeys(key for group in groups for key in group.settings)


def _same(key: str, groups: Sequence[Group]) -> bool:
    return len({json.dumps(group.settings.get(key), default=str) for group in groups}) == 1


def accuracy_bands(groups: Sequence[Group], first: int = 0) -> list[Series]:
    """Accuracy (%) of each group against student steps; agreement on probes for runs without a test set.

    ``first`` is the index of the first group's style.
    """
    found = [
        band(group.label, [(c.x, c.y) for _, c in map(main_curve, group.runs.values())], PERCENT, place)
        for place, group in enumerate(groups, first)
    ]
    return [series for series in found if series.x]


def forgetting_bands(groups: Sequence[Group], first: int = 0) -> list[Series]:
    """Forgetting of probes (points) of each group against student steps, in the same styles."""
    lost = QUANTITIES["forgetting"]
    found = [
        band(g.label, [(r.column("student_step"), r.column(lost.record)) for r in g.runs.values()], lost.within, place)
        for place, g in enumerate(groups, first)
    ]
    return [series for series in found if series.x]


def evolution_options(groups: Sequence[Group]) -> tuple[float | None, str]:
    """The teacher's accuracy (%), if it is the same in all runs, and the title of the accuracy panel."""
    runs: list[Run] = [run for group in groups for run in group.runs.values()]
    tested = all(main_curve(run)[0] for run in runs)
    teachers = {number(pick(run.result, "teacher", "accuracy")) for run in runs}
    one = tested and len(teachers) == 1
    return teachers.pop() if one else None, evolution_title(tested)


def write_figure(found: Comparison, file: Path, draw: str = "curves") -> None:
    """Draw one figure of a comparison into an ``.svg`` or ``.png`` file.

    Args:
        found: what was compared.
        file: to write.
        draw: ``curves``, accuracy and forgetting against student steps; ``ranking``, the configurations in the order of
            the first column; or ``cost``, that column against a cost, with places in the ranking as numbers.

    Raises:
        UsageError: for another suffix, or if nothing can be drawn.
    """
    refuse_suffix(file)
    name, column = next(iter(found.columns.items()))
    if draw == "curves":
        accuracy = accuracy_bands(found.groups)
        if not accuracy:
            raise UsageError("--figure: no run has an accuracy curve to draw")
        teacher, title = evolution_options(found.groups)
        options: dict[str, Any] = {"forgetting": forgetting_bands(found.groups), "teacher": teacher, "title": title}
        save_figure(file, figures.evolution, accuracy, **options)
        return
    order = _ranked_rows(found)
    if draw == "ranking":
        ranked = [_ranked(place, row, found, row.estimates[name]) for place, row in order]
        save_figure(file, figures.ranking, ranked, column.heading, width=WIDE / 1.4)
        return
    cost = next((cost for cost in COSTS if _points(found, order, cost, name)), None)
    if cost is None:
        raise UsageError(f"--draw cost: a cost must be among --columns: {', '.join(COSTS)}")
    titles = (found.columns[cost].heading, column.heading)
    save_figure(file, figures.frontier, _points(found, order, cost, name), *titles, column.better)


def write_frontier(found: Comparison, costs: Mapping[str, float], title: str, file: Path) -> None:
    """Draw the first column against costs that were measured apart from the runs, by the places of `write_figure`.

    Args:
        found: what was compared.
        costs: of each row that is to be drawn, by its label.
        title: of the axis of costs.
        file: to write, ``.svg`` or ``.png``.

    Raises:
        UsageError: for another suffix.
    """
    refuse_suffix(file)
    column = next(iter(found.columns.values()))
    points = []
    for place, row in _ranked_rows(found):
        values = [*row.group.values(column).values()]
        if row.group.label in costs:
            points.append(Point(place, found.rows.index(row), [costs[row.group.label]] * len(values), values))
    save_figure(file, figures.frontier, points, title, column.heading, column.better)
