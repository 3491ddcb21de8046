"""Configurations in tables of two directions: a column for each value of one setting, a row for each of the rest."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence

from lra.benchmarks.comparison.compare import Comparison, Row
from lra.benchmarks.comparison.groups import SHORT, Group, is_default, labels, text_of
from lra.benchmarks.comparison.tables import NOTES, cell
from lra.benchmarks.errors import UsageError
from lra.benchmarks.records import Record
from lra.benchmarks.text import Cells, aligned_table, latex_table, markdown_table
from lra.strategies.retention import REPLAYS

Columns = dict[str, Row]
"""Of one row of a table: the configuration for each value that has one."""


def crossed(comparison: Comparison, setting: str, form: str) -> str:
    """One table for each quantity in one of `FORMS`: means and intervals, with a column for each value of a setting.

    A row is a run's name without the setting; what the setting decides, as a method may its teacher, is no part of it.

    Args:
        comparison: the configurations.
        setting: such as ``replay`` or ``synthesis.steps``.
        form: the output format.

    Raises:
        UsageError: if the setting has fewer than two values, if two configurations have one place, and for another
            format.
    """
    if form not in FORMS:
        raise UsageError(f"--across makes tables to read, {', '.join(FORMS)}: --format {form} is without it")
    path = SHORT.get(setting, setting)
    values = {row.group.label: text_of(row.group.settings.get(path)) for row in comparison.rows}
    if len(set(values.values())) < 2:
        known = any(path in group.settings for group in comparison.groups)
        found = f"is {next(iter(values.values()))} in all of them" if known else "is in none of them"
        raise UsageError(f"--across {setting!r}: give a setting in which the configurations differ; this one {found}")
    table = _placed(comparison.rows, path, values)
    head = sorted(dict.fromkeys(values.values()), key=_rank)
    parts = []
    for name, quantity in comparison.columns.items():
        rows = [
            [label, *(cell(found[value], name, comparison) if value in found else "" for value in head)]
            for label, found in table
        ]
        parts.append(FORMS[form](quantity.heading, [["", *head], *rows]))
    return "\n\n".join(filter(None, [*parts, NOTES[form](comparison.notes)])) + "\n"


def _placed(rows: Sequence[Row], path: str, values: Mapping[str, str]) -> list[tuple[str, Columns]]:
    """The label of each row of the table, and what it has."""
    settings = [_said(row.group) for row in rows]
    apart = _apart(settings, path)
    found: dict[str, tuple[Group, Columns]] = {}
    for row, own in zip(rows, settings, strict=True):
        rest = {key: own[key] for key in apart if key in own}
        _, columns = found.setdefault(json.dumps(rest, default=str), (Group(rest, row.group.runs), {}))
        if twin := columns.get(values[row.group.label]):
            both = f"{twin.group.label!r} and {row.group.label!r}"
            raise UsageError(
                f"--across {path}: {both} have the same place, for they differ in defaults alone; give one"
            )
        columns[values[row.group.label]] = row
    groups = [group for group, _ in found.values()]
    names = labels(groups) if len(groups) > 1 else [""]
    return list(zip(names, (columns for _, columns in found.values()), strict=True))


def _said(group: Group) -> Record:
    """The settings of a configuration and its teacher, without defaults, which other replays may not have."""
    found = {key: value for key, value in group.settings.items() if not is_default(key, group.settings)}
    return found | {"teacher.sha256": group.teacher[:8]}


def _apart(settings: Sequence[Record], path: str) -> list[str]:
    """The settings that make a row: those that name a run, and what else differs between runs of one name."""
    names = [key for key in SHORT.values() if key != path]

    def differs(key: str, among: Sequence[str]) -> bool:
        """Whether the setting differs between configurations with the same value of ``path`` and of some others."""
        found: dict[tuple[str, ...], set[str]] = {}
        for own in settings:
            found.setdefault(tuple(text_of(own.get(k)) for k in (path, *among)), set()).add(text_of(own.get(key)))
        return any(len(values) > 1 for values in found.values())

    others = dict.fromkeys(key for own in settings for key in own if key not in (path, *names))
    return [key for key in names if differs(key, ())] + [key for key in others if differs(key, names)]


def _rank(value: str) -> tuple[float, str]:
    """Replays in the order of their list, numbers by size, and words by letter."""
    known = list(REPLAYS)
    try:
        return (known.index(value), "") if value in known else (float(value), "")
    except ValueError:
        return (float("inf"), value)


FORMS: dict[str, Callable[[str, Cells], str]] = {
    "table": lambda heading, cells: f"{heading}\n{aligned_table(cells, shutil.get_terminal_size((120, 40)).columns)}",
    "md": lambda heading, cells: f"**{heading}**\n\n{markdown_table(cells[0], cells[1:])}",
    "latex": lambda heading, cells: f"% {heading}\n{latex_table(cells)}",
}
