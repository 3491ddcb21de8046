"""A comparison as text: for a terminal, Markdown, LaTeX, CSV, JSON, and as a page that says how to repeat it."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lra.benchmarks.comparison.compare import Comparison, Row
from lra.benchmarks.comparison.estimates import Difference, Estimate
from lra.benchmarks.comparison.groups import Group, sweep_record, swept_by
from lra.benchmarks.records import Run, pick
from lra.benchmarks.text import aligned_table, counted, latex_table, markdown_table, number_text
from lra.metrics.quantities import QUANTITIES


def render(comparisons: Sequence[Comparison], form: str) -> str:
    """Comparisons of the same runs with several baselines in one of `FORMATS`, ending in a line break.

    Formats for people have a section for each, without repeated notes; those for programs have one list of records.
    """
    first, *others = comparisons
    notes = dict.fromkeys(note for one in comparisons for note in one.notes)
    if form in ("csv", "json"):
        return FORMATS[form](replace(first, rows=[row for one in comparisons for row in one.rows], notes=list(notes)))
    told = set(first.notes)
    sections = [FORMATS[form](first)]
    for one in others:
        sections.append(FORMATS[form](replace(one, notes=[note for note in one.notes if note not in told])))
        told.update(one.notes)
    return "\n".join(sections)


def cells(comparison: Comparison) -> list[list[str]]:
    """The table for people: the first column in full, the others as mean and interval."""
    first, *others = comparison.columns
    parts: list[tuple[str, Callable[[Row], str]]] = [
        ("", lambda row: row.group.label),
        ("seeds", lambda row: str(row.seeds)),
        *_primary(comparison, first),
        *((comparison.columns[name].heading, partial(cell, column=name, of=comparison)) for name in others),
    ]
    if "seconds" not in comparison.columns and any(row.paper for row in comparison.rows):
        parts.append(("hours", _hours))
    return [[title for title, _ in parts], *([read(row) for _, read in parts] for row in comparison.rows)]


def _primary(comparison: Comparison, name: str) -> Iterator[tuple[str, Callable[[Row], str]]]:
    column, rows = comparison.columns[name], comparison.rows
    if any(row.paper for row in rows):
        yield "paper", lambda row: f"{row.paper[0]:.{column.digits}f}" if row.paper else ""
    yield column.heading, partial(cell, column=name, of=comparison)
    if any(row.seeds > 1 for row in rows):
        yield "sd", lambda row: _of(row.estimates.get(name), lambda e: number_text(e.sd, column.digits))
    if any(row.seeds > 3 for row in rows):
        yield "IQM", lambda row: _of(row.estimates.get(name), lambda e: number_text(e.iqm, column.digits))
    if any(row.differences for row in rows):
        targets = {row.against for row in rows if row.differences}
        single = len(targets) == 1
        if not single:
            yield "against", lambda row: row.against or ""
        title = f"− {targets.pop()}" if single else "difference"
        yield title, lambda row: _of(row.differences.get(name), lambda d: interval(d.estimate, column.digits, "+"))
        yield "p", lambda row: _of(row.differences.get(name), lambda d: p_value(d.p))
        if sum(row.differences[name].p is not None for row in rows if name in row.differences) > 1:
            yield "p (Holm)", lambda row: _of(row.differences.get(name), lambda d: p_value(d.corrected))


def cell(row: Row, column: str, of: Comparison) -> str:
    """A column of a row for people: mean and interval, of costs the mean alone."""
    quantity = of.columns[column]

    def text(found: Estimate) -> str:
        return number_text(found.mean, quantity.digits) if quantity.cost else interval(found, quantity.digits)

    return _of(row.estimates.get(column), text)


def _hours(row: Row) -> str:
    seconds = row.group.values(QUANTITIES["seconds"])
    return f"{sum(seconds.values()) / len(seconds) / 3600:.2g}" if seconds else "—"


def _of(found: Any, text: Callable[[Any], str]) -> str:
    return "—" if found is None else text(found)


def interval(found: Estimate, digits: int, sign: str = "") -> str:
    """Mean and interval: ``96.67 [95.92, 97.21]``; equal and single values have no interval."""
    mean = number_text(found.mean, digits, sign)
    if found.low is None or found.how == "equal":
        return mean
    return f"{mean} [{number_text(found.low, digits, sign)}, {number_text(found.high, digits, sign)}]"


def p_value(p: float | None) -> str:
    """A p-value with a sensible number of digits."""
    return "—" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def for_terminal(comparison: Comparison) -> str:
    """Aligned columns, in as many blocks as the terminal needs, and the notes."""
    blocks = aligned_table(cells(comparison), shutil.get_terminal_size((120, 40)).columns)
    return "\n\n".join(filter(None, [blocks, NOTES["table"](comparison.notes)])) + "\n"


def markdown(comparison: Comparison) -> str:
    """A pipe table, and the notes as one small line."""
    head, *rows = cells(comparison)
    return "\n\n".join(filter(None, [markdown_table(head, rows), NOTES["md"](comparison.notes)])) + "\n"


def latex(comparison: Comparison) -> str:
    """A booktabs table, and the notes as comments."""
    return "\n".join(filter(None, [NOTES["latex"](comparison.notes), latex_table(cells(comparison))])) + "\n"


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """One record for each configuration and column, unrounded."""
    return [
        {"configuration": row.group.label, "column": name, "seeds": sorted(row.group.runs)}
        | asdict(found)
        | {"paper": row.paper[0] if row.paper and name == next(iter(comparison.columns)) else None}
        | {"against": row.against}
        | _flat(row.differences.get(name))
        for row in comparison.rows
        for name, found in row.estimates.items()
    ]


def _flat(found: Difference | None) -> dict[str, float | None]:
    e = found.estimate if found else None
    return {
        "pairs": e.n if e else None,
        "difference": e.mean if e else None,
        "difference_low": e.low if e else None,
        "difference_high": e.high if e else None,
        "p": found.p if found else None,
        "p_holm": found.corrected if found else None,
    }


def as_csv(comparison: Comparison) -> str:
    """The records as CSV."""
    rows, out = records(comparison), io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"seeds": " ".join(map(str, row["seeds"]))} for row in rows)
    return out.getvalue()


def as_json(comparison: Comparison) -> str:
    """The records and notes as one JSON object."""
    return json.dumps({"rows": records(comparison), "notes": comparison.notes}, ensure_ascii=False, indent=2) + "\n"


NOTES: dict[str, Callable[[Sequence[str]], str]] = {
    "table": lambda notes: "\n".join(f"* {note}" for note in notes),
    "md": lambda notes: f"<sub>{'; '.join(notes).replace('<', '&lt;')}.</sub>" if notes else "",
    "latex": lambda notes: "\n".join(f"% {note}" for note in notes),
}
"""Remarks as text, in the formats for people."""
FORMATS: dict[str, Callable[[Comparison], str]] = {
    "table": for_terminal,
    "md": markdown,
    "latex": latex,
    "csv": as_csv,
    "json": as_json,
}


def markdown_page(groups: Sequence[Group], tables: str, places: Sequence[Path], command: str, title: str) -> str:
    """Tables as a Markdown page that says how to repeat them: commands, grids, machine.

    Args:
        groups: the configurations found in ``places``.
        tables: in Markdown.
        places: sweeps, or folders of runs; the grid of each sweep is quoted.
        command: the command that writes this page.
        title: its heading.

    Raises:
        UsageError: for a sweep whose record is damaged.
    """
    runs = [run for group in groups for run in group.runs.values()]
    found = {place: sweep_record(place / "sweep.json") for place in places if (place / "sweep.json").is_file()}
    sweeps = [swept_by(record, place) for place, record in found.items()]
    grids = [record["grid"] for record in found.values()]
    quoted = [yaml.safe_dump(grid, sort_keys=False, default_flow_style=None).rstrip() for grid in grids]
    parts = [
        f"# {title}",
        _block("\n".join([*sweeps, command])),
        *(_block(text, "yaml") for text in quoted),
        f"{counted(len(runs), 'run')}, {machines(runs)}.",
        tables.rstrip(),
    ]
    return "\n\n".join(parts) + "\n"


def _block(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```"


def machines(runs: Sequence[Run]) -> str:
    """The hardware of the runs, as far as their folders state it."""
    kinds = {(pick(r.env, "cuda") or "CPU", pick(r.env, "threads"), pick(r.env, "versions", "torch")) for r in runs}
    return "; ".join(sorted(f"{device}, torch threads: {threads}, torch {torch}" for device, threads, torch in kinds))
