"""The report of one run: a page that needs nothing but itself.

`write_report` is a function of the run folder alone: the same folder gives the same bytes. The words are in
``templates/report.html``; here is what it is given. Strings are escaped there, all of them.
"""

import base64
from itertools import islice
from pathlib import Path
from reprlib import Repr

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_atomically
from lra.benchmarks.records import (
    Record,
    ReportError,
    Run,
    flatten,
    known,
    mean,
    number,
    numbers,
    pick,
    read_run,
    read_samples,
    spread,
)
from lra.benchmarks.reports.figures import Series
from lra.benchmarks.reports.run_figures import class_names, main_curve, run_figures

__all__ = ["ReportError", "render", "write_report"]

MOST_ROWS = 400
MOST_CLASSES = 100


def write_report(run: Path) -> Path:
    """Write ``report.html`` into the run folder, whole or not at all, and return its path.

    Raises:
        ReportError: if the folder holds no run, or a damaged one, or cannot be written to.
    """
    page = render(run).encode("utf-8", "replace")
    target = run / "report.html"
    try:
        write_atomically(target, lambda file: file.write(page))
    except UsageError as error:
        raise ReportError(f"{error}; make room or make the folder writable") from error
    return target


def render(folder: Path) -> str:
    """The report of the run in `folder` as HTML."""
    run, samples = read_run(folder), sample_pictures(folder / "samples")
    tested, curve = main_curve(run)
    return (
        pages()
        .get_template("report.html")
        .render(
            run=run,
            result=run.result,
            name=_names(run),
            tested=tested,
            summary=_summary(run, tested, curve),
            figure=run_figures(run, tested, curve),
            samples=samples,
            classes=class_rows(run),
        )
    )


def pages() -> Environment:
    """Where templates come from: with everything escaped, and our filters."""
    templates = FileSystemLoader(Path(__file__).with_name("templates"))
    found = Environment(
        loader=templates, autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {"num": _num, "clock": _clock, "settings": _settings, "shown": _shown}
    return found


def _summary(run: Run, tested: bool, curve: Series) -> Record:
    """The numbers of the head of the page: from ``result.json`` or, before it exists, from the metrics."""
    stored = pick(run.result, "accuracy") if tested else None
    summary: Record = {**spread(curve.y), **(stored if isinstance(stored, dict) else {})}
    for key in ("agreement", "loyalty"):
        summary[key] = _first(pick(run.result, key), run.last(key))
    if not tested:
        summary["agreement"] = _first(summary["agreement"], summary.get("final"))
    summary["forgetting"] = _first(pick(run.result, "forgetting", "average"), run.last("forgetting"))
    summary["steps"] = _first(pick(run.result, "cost", "student_steps"), run.last("student_step"))
    summary["alignment"] = _first(pick(run.result, "alignment", "mean"), mean(run.column("alignment")))
    summary["teacher"] = _first(pick(run.result, "teacher", "accuracy"), run.teacher.get("accuracy"))
    return summary


def _names(run: Run) -> Record:
    """What names the run, from the result or, before it exists, from the config."""
    names: Record = {}
    for key in ("method", "replay", "meta", "teacher", "student", "dataset", "seed"):
        value = run.result.get(key, run.config.get(key))
        names[key] = value.get("name") if isinstance(value, dict) else value
    names["teacher"] = names["teacher"] or run.teacher.get("name")
    return names


def class_rows(run: Run) -> list[Record]:
    """Class by class: test images, what teacher and student get right of them, and the share of what was generated.

    Those that lost most first, and `MOST_CLASSES` at most; empty without a test set, or before the end.
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


def sample_pictures(folder: Path) -> list[Record]:
    """Sample pictures as data addresses, with their student step and whether they are wide strips."""
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
    """A setting as text, cut where no reader would go on (or where no page could: a YAML file of aliases)."""
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


def _num(value: object, digits: int = 0, sign: str = "") -> str:
    found = number(value)
    return "—" if found is None else f"{found:{sign},.{digits}f}".replace("-", "−")


def _clock(value: object) -> str:
    """Seconds as a person says them."""
    seconds = number(value)
    if seconds is None:
        return "—"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _first(*values: object) -> float | None:
    return next((v for v in map(number, values) if v is not None), None)
