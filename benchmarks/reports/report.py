"""The report of one run: a self-contained page.

`write_report` depends on the run folder alone: the same folder gives the same bytes. The text is in
``templates/report.html`` (for a run of increments, ``increment.html``) and in the declarations of quantities; this
module decides which numbers go where. The templates escape all strings.
"""

import base64
from itertools import islice
from pathlib import Path
from reprlib import Repr
from typing import Any, NamedTuple

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_text
from lra.benchmarks.progress import clock
from lra.benchmarks.records import (
    INCREMENT,
    REPLAYED,
    SAMPLES,
    Record,
    ReportError,
    Run,
    flatten,
    known,
    number,
    numbers,
    pick,
    read_run,
    read_samples,
    table,
)
from lra.benchmarks.reports import figures
from lra.benchmarks.reports.curves import Series
from lra.benchmarks.reports.drawing import DARK, NARROW, PALETTE, WIDE, custom_properties
from lra.benchmarks.reports.run_figures import class_rows, learned_rates, main_curve, run_figures
from lra.benchmarks.text import number_text
from lra.metrics.evolution import evolution_record
from lra.metrics.quantities import AVERAGE, COMPARED_INCREMENTS, QUANTITIES, TILES, Quantity, quantities

MOST_ROWS = 400


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a run, of distillation or increments, and return its path.

    Raises:
        ReportError: if the folder holds no run, or a damaged one, or cannot be written to.
    """
    run = read_run(folder)
    return write_page(folder, _of_increments(run) if run.kind == INCREMENT else _of_distillation(run))


def write_page(folder: Path, page: str) -> Path:
    """Write ``report.html`` into a folder, whole or not at all, and return its path.

    Raises:
        ReportError: if it cannot be written.
    """
    target = folder / "report.html"
    try:
        write_text(target, page.encode("utf-8", "replace").decode())
    except UsageError as error:
        raise ReportError(f"{error}; make room or make the folder writable") from error
    return target


def filled(template: str, **content: Any) -> str:
    """A page: one of our templates, filled with ``content``."""
    return templates().get_template(template).render(**content)


def _of_distillation(run: Run) -> str:
    tested, curve = main_curve(run)
    found = Numbers(run, tested, curve)
    return filled(
        "report.html",
        run=run,
        result=run.result,
        name=_names(run),
        tested=tested,
        measure=found.measure,
        value=found.values,
        teacher=found.teacher,
        tiles=found.tiles(),
        numbers=found.rows(cost=False),
        costs=found.rows(cost=True),
        reason=found.reason,
        figure=run_figures(run, tested, curve),
        samples=sample_pictures(run.folder / SAMPLES),
        replayed=sample_pictures(run.folder / REPLAYED),
        classes=class_rows(run),
    )


def _of_increments(run: Run) -> str:
    rows = [known(numbers(row.get("accuracies"))) for row in run.rows]
    drawn: dict[str, str] = {}
    if any(rows):
        mean = Series("all classes met", run.column("student_step"), run.column("accuracy"))
        title = "accuracy on the test images of all classes met (%)"
        widths = {"wide": WIDE, "narrow": NARROW}
        drawn = {name: figures.evolution([mean], title=title, width=width) for name, width in widths.items()}
        after = [float(place) for place in range(1, len(rows) + 1)]
        axes = ("tested on experience", "after experience", "accuracy (%)")
        drawn["matrix"] = figures.forgetting_map(after, after, table(rows), axes)
    if rates := learned_rates(run):
        drawn["rates"] = figures.rates(*rates)
    return filled(
        "increment.html",
        run=run,
        finished=run.result.get("status") == "finished",
        experiences=pick(run.config, "experiences"),
        numbers=[(quantity, run.latest(quantity)) for quantity in quantities(*COMPARED_INCREMENTS)],
        figure=drawn,
    )


def templates() -> Environment:
    """The environment of our templates: with our filters, and everything escaped."""
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    found = Environment(
        loader=loader, autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.globals |= {"light": custom_properties(PALETTE), "dark": custom_properties(DARK)}
    found.filters |= {"num": number_text, "clock": _clock, "settings": _settings, "shown": _shown}
    return found


class Shown(NamedTuple):
    """A quantity as a page shows it; the note is what else there is to say."""

    name: str
    title: str
    text: str
    unit: str
    note: str


class Numbers:
    """The quantities of a run: from ``result.json`` or, before it exists, from the records of its evaluations.

    Args:
        run: the run.
        tested: whether it has a test set; without one, agreement on probes takes the place of accuracy.
        curve: of accuracy, or of what takes its place.
    """

    def __init__(self, run: Run, tested: bool, curve: Series):
        self.run, self.tested = run, tested
        self.measure = "accuracy" if tested else "agreement on probes"
        evolved, self.values = evolution_record(curve.y), {}
        stored = pick(run.result, "accuracy") if tested else None
        for name, quantity in QUANTITIES.items():
            section, _, key = quantity.path.partition(".")
            if section != "accuracy" or quantity.derived:
                self.values[name] = run.latest(quantity)
            else:
                self.values[name] = _first(run.value(quantity) if tested else None, evolved.get(key))
        if not tested:
            self.values["agreement"] = _first(self.values["agreement"], evolved.get("final"))
        self.teacher = _first(pick(run.result, "teacher", "accuracy"), run.teacher.get("accuracy"))
        self.reason = _shown((evolved | (stored if isinstance(stored, dict) else {})).get("reason", ""))

    def tiles(self) -> list[Shown]:
        """The quantities at the top of the page."""
        missing = {name for name, value in self.values.items() if value is None}
        forgotten = pick(self.run.result, "forgetting", "reason")
        images = self.values["images"]
        notes = {
            "accuracy": f"teacher {number_text(self.teacher, 1)} %" if self.tested and self.teacher is not None else "",
            "mean": self.reason if self.reason and "mean" in missing else "of every evaluation",
            "tail_variance": self.reason or f"of the whole run {number_text(self.values['variance'], 1)}",
            "forgetting": _shown(forgotten) if forgotten and "forgetting" in missing else "on frozen probes",
            "seconds": "" if images is None else f"{number_text(images)} images",
        }
        # Tiles show the unit of a variance, which rows leave out.
        units = {"tail_variance": "points²"}
        return [
            self._shown(q, q.title_alone or q.title, units.get(q.name, q.unit), notes.get(q.name, ""), min(q.digits, 1))
            for q in quantities(*TILES)
        ]

    def rows(self, cost: bool) -> list[Shown]:
        """What was measured or, with ``cost``, what it cost: a row for each, with its meaning."""
        tail = number(pick(self.run.result, "alignment", "tail_mean"))
        more = {
            "max": ": choosing it needs a test set, so it is no result of a data-free run" if self.tested else "",
            "alignment": "" if tail is None else f"; last half {number_text(tail, 4, '+')}",
        }
        shown = [
            q
            for q in QUANTITIES.values()
            if q.cost == cost
            and not q.derived
            and (q.usual or (AVERAGE in q.needs and self.values[q.name] is not None))
        ]
        return [
            self._shown(q, (cost and q.title_alone) or q.title, q.unit, q.meaning + more.get(q.name, "")) for q in shown
        ]

    def _shown(self, quantity: Quantity, title: str, unit: str, note: str, digits: int | None = None) -> Shown:
        """A quantity with ``digits`` and no plus sign; without ``digits``, as declared for a row of its own."""
        value = self.values[quantity.name]
        if quantity.name == "seconds":
            text = _clock(value)
        elif digits is not None:
            text = number_text(value, digits)
        else:
            alone = quantity.digits if quantity.digits_alone is None else quantity.digits_alone
            text = number_text(value, alone, "+" if quantity.signed else "")
        # Without a test set, titles name what takes the place of accuracy.
        return Shown(quantity.name, title.replace("accuracy", self.measure), text, f" {unit}" if unit else "", note)


def _names(run: Run) -> Record:
    """The names in the heading, from the result or, before it exists, from the config."""
    names: Record = {}
    for key in ("method", "replay", "meta", "teacher", "student", "dataset", "seed"):
        value = run.result.get(key, run.config.get(key))
        names[key] = value.get("name") if isinstance(value, dict) else value
    names["teacher"] = names["teacher"] or run.teacher.get("name")
    return names


def sample_pictures(folder: Path) -> list[Record]:
    """Sample pictures as data URLs, with their student step and whether they are wide strips."""
    samples = []
    for name, data in read_samples(folder):
        width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
        digits = name.removeprefix("step-")
        step = f"step {int(digits):,}" if digits.isdecimal() and digits.isascii() else name
        address = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
        samples.append({"step": step, "address": address, "wide": width > 2 * height})
    return samples


def _settings(record: object) -> list[tuple[str, object]]:
    return list(islice(flatten(record), MOST_ROWS))


def _shown(value: object) -> str:
    """A setting as text, shortened if it is long: YAML aliases can make it larger than any page."""
    if value is None or (isinstance(value, int) and abs(value) > 1e300):
        return "—"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)[:300]
    short = Repr()
    short.maxlist = short.maxdict = short.maxtuple = 24
    short.maxlevel = 2
    return short.repr(value)


def _clock(value: object) -> str:
    seconds = number(value)
    return "—" if seconds is None else clock(seconds, exact=True)


def _first(*values: object) -> float | None:
    return next((v for v in map(number, values) if v is not None), None)
