"""A comparison as text: for a terminal, Markdown, LaTeX, CSV, JSON."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from lra.benchmarks.comparison.compare import Comparison, Row
from lra.benchmarks.comparison.estimates import Difference, Estimate
from lra.benchmarks.comparison.measures import Column
from lra.benchmarks.markdown import table

Cells = list[list[str]]
"""A table row by row, the headings first."""


def render(comparison: Comparison, form: str) -> str:
    """The comparison in one of `FORMATS`, ending in a line break."""
    return FORMATS[form](comparison)


def cells(comparison: Comparison) -> Cells:
    """The table that people read: the first column in full, the others as mean and interval."""
    first, *others = comparison.columns
    parts = [
        ("", lambda row: row.group.label),
        ("seeds", lambda row: str(row.seeds)),
        *_primary(comparison, first),
        *((comparison.columns[name].title, _cell(comparison.columns[name], name)) for name in others),
    ]
    if "seconds" not in comparison.columns and any(row.paper for row in comparison.rows):
        parts.append(("hours", _hours))
    return [[title for title, _ in parts], *([read(row) for _, read in parts] for row in comparison.rows)]


def _primary(comparison: Comparison, name: str) -> Iterator[tuple[str, Callable[[Row], str]]]:
    column, rows = comparison.columns[name], comparison.rows
    if any(row.paper for row in rows):
        yield "paper", lambda row: f"{row.paper[0]:.{column.digits}f}" if row.paper else ""
    yield column.title, _cell(column, name)
    if any(row.seeds > 1 for row in rows):
        yield "sd", lambda row: _of(row.estimates.get(name), lambda e: _number(e.sd, column.digits))
    if any(row.seeds > 3 for row in rows):
        yield "IQM", lambda row: _of(row.estimates.get(name), lambda e: _number(e.iqm, column.digits))
    if any(row.differences for row in rows):
        targets = {row.against for row in rows if row.differences}
        single = len(targets) == 1
        if not single:
            yield "against", lambda row: row.against or ""
        title = f"− {targets.pop()}" if single else "difference"
        yield title, lambda row: _of(row.differences.get(name), lambda d: interval(d.estimate, column.digits, "+"))
        yield "p", lambda row: _of(row.differences.get(name), p_value)


def _cell(column: Column, name: str) -> Callable[[Row], str]:
    def text(found: Estimate) -> str:
        return _number(found.mean, column.digits) if column.cost else interval(found, column.digits)

    return lambda row: _of(row.estimates.get(name), text)


def _hours(row: Row) -> str:
    seconds = row.group.values(lambda run: run.result.get("cost", {}).get("seconds"))
    return f"{sum(seconds.values()) / len(seconds) / 3600:.2g}" if seconds else "—"


def _of(found: Any, text: Callable[[Any], str]) -> str:
    return "—" if found is None else text(found)


def interval(found: Estimate, digits: int, sign: str = "") -> str:
    """Mean and interval: ``96.67 [95.92, 97.21]``; equal and single values stand alone."""
    mean = _number(found.mean, digits, sign)
    if found.low is None or found.how == "equal":
        return mean
    return f"{mean} [{_number(found.low, digits, sign)}, {_number(found.high, digits, sign)}]"


def p_value(difference: Difference) -> str:
    """The p-value of a difference, with as many digits as are worth reading."""
    p = difference.p
    return "—" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _number(value: float | None, digits: int, sign: str = "") -> str:
    text = "—" if value is None else f"{value:{sign},.{digits}f}"
    return text.replace("-", "−") if text.strip("-+0.,") else text.replace("-", "").replace("+", "")


def for_terminal(comparison: Comparison) -> str:
    """Aligned columns, in as many blocks as the terminal needs, and the notes."""
    rows = cells(comparison)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    blocks = _blocks(widths, shutil.get_terminal_size((120, 40)).columns)
    tables = ("\n".join(_line([row[i] for i in block], [widths[i] for i in block]) for row in rows) for block in blocks)
    return "\n\n".join([*tables, *filter(None, ["\n".join(f"* {note}" for note in comparison.notes)])]) + "\n"


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns packed into blocks of at most ``room`` characters, each beginning with the labels."""
    blocks = [[0]]
    for i in range(1, len(widths)):
        used = sum(widths[j] + 2 for j in blocks[-1])
        if used + widths[i] > room and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(i)
    return blocks


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    label, *rest = row
    return "  ".join([label.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]).rstrip()


def markdown(comparison: Comparison) -> str:
    """A pipe table, and the notes as one small line."""
    head, *rows = cells(comparison)
    notes = "; ".join(comparison.notes).replace("<", "&lt;") + "."
    return table(head, rows) + "\n" + (f"\n<sub>{notes}</sub>\n" if comparison.notes else "")


def latex(comparison: Comparison) -> str:
    """A booktabs table, and the notes as comments."""
    head, *rows = [[_tex(cell) for cell in row] for row in cells(comparison)]
    lines = [
        *(f"% {note}" for note in comparison.notes),
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "μ": r"$\mu$", "σ²": r"$\sigma^2$"},
    **{"—": "--", "<": "$<$", ">": "$>$"},
}


def _tex(text: str) -> str:
    text = text.replace("σ²", "σ")
    return "".join({"σ": TEX["σ²"], **TEX}.get(c, c) for c in text)


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


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "table": for_terminal,
    "md": markdown,
    "latex": latex,
    "csv": as_csv,
    "json": as_json,
}
