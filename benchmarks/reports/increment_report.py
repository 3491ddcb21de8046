"""The report of one run of increments: a page that needs nothing but itself, and a function of the folder alone."""

from pathlib import Path

from lra.benchmarks.files import write_text
from lra.benchmarks.records import Run, known, numbers, pick, read_run, table
from lra.benchmarks.reports import figures
from lra.benchmarks.reports.drawing import NARROW, WIDE, Series
from lra.benchmarks.reports.report import templates
from lra.metrics.quantities import COMPARED_INCREMENTS, quantities

TITLES = ("tested on experience", "after experience", "accuracy (%)")


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the run folder and return its path.

    Raises:
        UsageError: if the folder holds no run, or a damaged one, or cannot be written to.
    """
    write_text(folder / "report.html", render(folder).encode("utf-8", "replace").decode())
    return folder / "report.html"


def render(folder: Path) -> str:
    """The report of the run in ``folder`` as HTML."""
    run = read_run(folder)
    rows = [known(numbers(row.get("accuracies"))) for row in run.rows]
    return (
        templates()
        .get_template("increment.html")
        .render(
            run=run,
            finished=run.result.get("status") == "finished",
            experiences=pick(run.config, "experiences"),
            numbers=[(quantity, run.latest(quantity)) for quantity in quantities(*COMPARED_INCREMENTS)],
            figure=_figures(run, rows),
        )
    )


def _figures(run: Run, rows: list[list[float]]) -> dict[str, str]:
    if not any(rows):
        return {}
    mean = Series("all classes met", run.column("student_step"), run.column("accuracy"))
    title = "accuracy on the test images of all classes met (%)"
    widths = {"wide": WIDE, "narrow": NARROW}
    drawn = {name: figures.evolution([mean], title=title, width=width) for name, width in widths.items()}
    after = [float(place) for place in range(1, len(rows) + 1)]
    return drawn | {"matrix": figures.forgetting_map(after, after, table(rows), TITLES)}
