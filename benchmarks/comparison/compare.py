"""Configurations side by side: estimates over seeds, differences paired by seed, published numbers.

Numbers that papers report are in ``published.yaml``, a list of entries

    {method, teacher, student, dataset, value, mean, variance, source}

``value`` is the best accuracy over epochs; ``mean`` and ``variance``, given by few papers, are over all epochs.
``method`` is one of ours (``predfkd``), with its retention (``predfkd+memory+meta``), or a preset (``lra-mb``). Entries
for class increments

    {method, student, dataset: split-cifar100, experiences, value, deviation, average, source}

have the final accuracy, some with its deviation over orders of classes, or the average incremental accuracy; their
``method`` is a strategy, or a baseline that is not ours.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lra.benchmarks.comparison.estimates import FEWEST, Difference, Estimate, How, estimate, holm, paired
from lra.benchmarks.comparison.groups import CONTENT, PACE, SHORT, Group, finished, grouped, run_folders
from lra.benchmarks.errors import UsageError, suggestion
from lra.benchmarks.files import NotPlain, parse_yaml
from lra.benchmarks.records import DISTILLED, INCREMENT, TASKS, Record, Run, flatten, pick
from lra.benchmarks.setup.presets import presets, printed
from lra.benchmarks.text import counted
from lra.metrics.quantities import COMPARED, COMPARED_INCREMENTS, COMPARED_TASKS, QUANTITIES, Quantity, at


@dataclass(frozen=True)
class Row:
    """One configuration.

    Attributes:
        group: its runs.
        against: label of its baseline, if it has one.
        estimates: by column; columns without a value are absent.
        differences: from the baseline, by column.
        paper: the published number of the first column, if there is one, and its source.
    """

    group: Group
    against: str | None
    estimates: dict[str, Estimate]
    differences: dict[str, Difference]
    paper: tuple[float, str] | None

    @property
    def seeds(self) -> int:
        """Its number of runs."""
        return len(self.group.runs)


@dataclass(frozen=True)
class Comparison:
    """Rows, the quantities measured, and remarks for the reader."""

    rows: list[Row]
    columns: dict[str, Quantity]
    notes: list[str]

    @property
    def groups(self) -> list[Group]:
        """The configurations."""
        return [row.group for row in self.rows]


def compare(
    places: Iterable[Path], columns: str | None = None, against: str | None = None, allow_different: bool = False
) -> Comparison:
    """Compare all finished runs in some folders with one baseline; see `comparisons`."""
    (found,) = comparisons(places, columns, (against,), allow_different)
    return found


def comparisons(
    places: Iterable[Path],
    columns: str | None = None,
    against: Sequence[str | None] = (None,),
    allow_different: bool = False,
) -> list[Comparison]:
    """Compare all finished runs in some folders, once for each baseline.

    Args:
        places: run folders, sweeps, or folders of these. If runs are of several kinds, those of the first are compared.
        columns: comma-separated names from `lra.metrics.quantities.QUANTITIES`.
        against: the baselines: a label, or a setting that distinguishes it, such as ``replay=none``; ``None`` compares
            each configuration that has the LRA step with the same one without it. If there are none, nothing is paired.
        allow_different: compare runs with different teachers or data sets.

    Raises:
        MissingInput: if there are no finished runs.
        UsageError: for unknown names, and for runs that cannot be compared.
    """
    folders = run_folders(places)
    every, unfinished = finished(folders)
    kind = min((run.kind for run in every), key=lambda name: (name != DISTILLED, name))
    runs = [run for run in every if run.kind == kind]
    groups = grouped(runs)
    if not allow_different:
        refuse_different(groups)
    kept, notes = measured(chosen(columns, kind), runs, columns is not None)
    if others := len(every) - len(runs):
        notes.insert(0, f"left out: {counted(others, 'run')} of another kind; give their folders alone to compare them")
    if unfinished:
        notes.insert(0, f"left out: {counted(unfinished, 'unfinished run')}")
    if ended := [run.stopped for run in runs if run.stopped]:
        first = "one of them by" if len(set(ended)) > 1 else "by"
        notes.insert(0, f"{len(ended)} of {len(runs)} runs were stopped before their end, {first} {ended[0]}")
    if "student_steps" not in kept and len({str(group.settings.get(PACE)) for group in groups}) > 1:
        notes.append("rows differ in student steps, see --columns student_steps")
    if rolled_back := sum(bool(run.rollbacks) for run in runs):
        notes.append(f"{rolled_back} of {len(runs)} runs diverged and went on from before at a lower rate")
    bare = [_row(group, kept) for group in groups]
    if not against:
        return [Comparison(bare, kept, [*notes, *_remarks(bare, kept)])]
    found = []
    for one in against:
        rows = [_compared(row, base, kept) for row, base in zip(bare, find_baselines(groups, one), strict=True)]
        rows = _corrected(rows, kept)
        found.append(Comparison(rows, kept, [*notes, *_remarks(rows, kept)]))
    return found


def _corrected(rows: Sequence[Row], columns: Iterable[str]) -> list[Row]:
    """Rows whose differences are corrected for multiple comparisons within their column."""
    changed = [dict(row.differences) for row in rows]
    for name in columns:
        tested = [(own, d.p) for own in changed if (d := own.get(name)) is not None and d.p is not None]
        for (own, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
            own[name] = replace(own[name], corrected=p)
    return [replace(row, differences=own) for row, own in zip(rows, changed, strict=True)]


def chosen(names: str | None, kind: str = DISTILLED) -> dict[str, Quantity]:
    """The quantities of a comma-separated list, in its order; if none is given, the usual ones for this kind of run.

    Raises:
        UsageError: for an unknown one.
    """
    usual = {INCREMENT: COMPARED_INCREMENTS, TASKS: COMPARED_TASKS}.get(kind, COMPARED)
    wanted = list(usual) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in QUANTITIES:
            raise UsageError(f"--columns: unknown column {name!r}; {suggestion(name, QUANTITIES)}")
    if not wanted:
        raise UsageError(f"--columns is empty; {suggestion('', QUANTITIES)}")
    return {name: QUANTITIES[name] for name in wanted}


def measured(
    columns: Mapping[str, Quantity], runs: Sequence[Run], asked: bool
) -> tuple[dict[str, Quantity], list[str]]:
    """The columns for which any run has a value, and a note on each that some or all runs lack.

    Raises:
        UsageError: if a column was requested by name and no run has it.
    """
    kept, notes = {}, []
    for name, column in columns.items():
        lacking = [run for run in runs if run.value(column) is None]
        if len(lacking) < len(runs):
            kept[name] = column
        elif asked:
            raise UsageError(f"none of {len(runs)} runs has a value for {name!r}: {_why(column, runs)}")
        if lacking and (asked or name in kept or column.usual):
            share = "no run has" if name not in kept else f"{len(lacking)} of {len(runs)} runs have no"
            notes.append(f"{share} {name}: {_why(column, lacking)}")
    if not kept:
        raise UsageError(f"none of {len(runs)} runs has any of {', '.join(columns)}")
    return kept, notes


def _why(column: Quantity, lacking: Sequence[Run]) -> str:
    """What the column needs and the runs lack: the first such thing of each run, and of these the latest."""
    if not column.needs:
        return "their results lack it"
    met = [[at(run.result, need.shown_by) is not None for need in column.needs] for run in lacking]
    wanted = max(one.index(False) if False in one else len(one) - 1 for one in met)
    return f"it needs {column.needs[wanted].words}"


def refuse_different(groups: Sequence[Group]) -> None:
    """Raise `UsageError` if the groups have different teachers or data sets."""
    teachers = {group.teacher: pick(next(iter(group.runs.values())).result, "teacher", "name") for group in groups}
    if len(teachers) > 1:
        names = ", ".join(f"{name} {sha[:8]}" for sha, name in teachers.items())
        raise UsageError(f"the runs have {len(teachers)} teachers ({names}): compare them with --allow-different")
    data: dict[tuple[object, object], str] = {}
    for found in (group.settings for group in groups):
        named = " ".join(str(found[key]) for key in ("data.name", "data.size") if key in found)
        # The same data may be called otherwise after a move.
        data.setdefault((found.get(CONTENT, found.get("data.name")), found.get("data.size")), named)
    if len(data) > 1:
        names = "; ".join(sorted(data.values()))
        raise UsageError(f"the runs are on different data ({names}): compare them with --allow-different")


def find_baselines(groups: Sequence[Group], against: str | None) -> list[Group | None]:
    """The group with which each group is compared.

    Raises:
        UsageError: if ``against`` matches none.
    """
    if against is None:
        return [_closest(g, groups, SHORT["meta"], "false", exact=True) for g in groups]
    by_label = {group.label: group for group in groups}
    if against in by_label:
        return [by_label[against] if group.label != against else None for group in groups]
    key, equals, value = (part.strip() for part in against.partition("="))
    if not equals:
        raise UsageError(f"--against {against!r}: no such configuration; there are: {', '.join(map(repr, by_label))}")
    key = SHORT.get(key, key)
    if not any(_is(group, key, value) for group in groups):
        found = sorted({str(group.settings[key]) for group in groups if key in group.settings})
        raise UsageError(f"--against {against!r}: no run has it; {key} is {', '.join(found) or 'in no configuration'}")
    return [_closest(group, groups, key, value, exact=False) for group in groups]


def _closest(group: Group, groups: Sequence[Group], key: str, value: str, exact: bool) -> Group | None:
    """The group with ``key`` at ``value`` that differs least otherwise; with ``exact``, in nothing but its pace."""
    if _is(group, key, value):
        return None
    section = key.split(".")[0]

    def apart(other: Group) -> set[str]:
        keys = [k for k in {**group.settings, **other.settings} if k.split(".")[0] != section]
        return {k for k in keys if group.settings.get(k) != other.settings.get(k)}

    def distance(other: Group) -> tuple[int, int]:
        found = apart(other)
        return sum(k in SHORT.values() for k in found), len(found)

    rivals = [other for other in groups if _is(other, key, value) and (not exact or apart(other) <= {PACE})]
    return min(rivals, key=distance, default=None)


def _is(group: Group, key: str, value: str) -> bool:
    try:
        return key in group.settings and group.settings[key] == parse_yaml(value)
    except NotPlain as error:
        raise UsageError(f"against {key}={value}: {error}") from None


def _row(group: Group, columns: Mapping[str, Quantity]) -> Row:
    values = {name: group.values(column) for name, column in columns.items()}
    estimates = {name: estimate([*found.values()], columns[name].within) for name, found in values.items() if found}
    return Row(group, None, estimates, {}, published(group, next(iter(columns))))


def _compared(row: Row, baseline: Group | None, columns: Mapping[str, Quantity]) -> Row:
    if baseline is None:
        return row
    found = {
        name: paired(row.group.values(column), baseline.values(column), column.within)
        for name, column in columns.items()
    }
    differences = {name: difference for name, difference in found.items() if difference is not None}
    return replace(row, against=baseline.label, differences=differences)


def _remarks(rows: Sequence[Row], columns: Mapping[str, Quantity]) -> list[str]:
    """Remarks on the numbers of the first column."""
    first = next(iter(columns))
    hows = {row.estimates[first].how for row in rows if first in row.estimates}
    words: dict[How, str] = {
        "t": f"95 % intervals are from Student's t where a configuration has fewer than {FEWEST} seeds",
        "bca": "95 % intervals of the mean over seeds are BCa bootstrap intervals",
        "percentile": "where BCa is not defined, the interval is a percentile bootstrap interval",
        "single": "a single seed has no interval",
        "equal": "where all seeds have the same value, no interval is shown",
    }
    notes = [text for how, text in words.items() if how in hows]
    if any(found.cut(columns[name].within) for row in rows for name, found in row.estimates.items()):
        notes.append("intervals are cut at the bounds of the measure, such as 100 %")
    pairs = sorted({row.differences[first].estimate.n for row in rows if first in row.differences})
    if pairs:
        least = ", ".join(f"{2 / 2**n:.2g} with {n} pairs" for n in pairs if n > 1)
        notes.append(
            "differences are paired by seed; p is from a two-sided sign-flip test, p (Holm) is corrected for the column"
        )
        notes += [f"the smallest possible p is {least}"] if least and min(pairs) < 8 else []
    sources = sorted({row.paper[1] for row in rows if row.paper and row.paper[1]})
    notes += [f"paper: {', '.join(sources)}; mostly the best evaluation of one run"] if sources else []
    lacking = [row.group.label for row in rows if row.against and first not in row.differences]
    notes += [f"{label} has no seed in common with its baseline" for label in lacking]
    return notes


COLUMNS = {
    **{"accuracy": "value", "max": "value", "mean": "mean", "variance": "variance"},
    "average_incremental": "average",
}
"""Column of a comparison to key of an entry."""


def published(group: Group, column: str) -> tuple[float, str] | None:
    """The published number of a configuration for a column, and its source; most columns have none."""
    if column not in COLUMNS:
        return None
    key = COLUMNS[column]
    run = next(iter(group.runs.values()))
    names, result, config = _names(group.settings), run.result, run.config
    facts = {
        "teacher": pick(result, "teacher", "name"),
        "student": pick(result, "student", "name"),
        "dataset": result.get("dataset"),
        "experiences": None,
    }
    if run.kind == INCREMENT:
        names = {_plain(config.get("strategy"))} if config.get("options", {}).get("alpha") is None else set()
        facts |= {"student": config.get("model"), "dataset": config.get("benchmark")}
        facts["experiences"] = config.get("experiences")
    for entry in printed():
        same = all(_plain(entry.get(key)) == _plain(fact) for key, fact in facts.items())
        if same and key in entry and _plain(entry["method"]) in names:
            return float(entry[key]), entry["source"]
    return None


def _names(found: Record) -> set[str]:
    method, replay, meta = found.get("method"), found.get("replay.name"), bool(found.get("meta.enabled"))
    names = {_plain(f"{method}+{replay}" + ("+meta" if meta else ""))}
    if replay == "none" and not meta:
        names.add(_plain(method))
    return names | {_plain(name.split("/")[0]) for name, preset in presets().items() if _stands_for(preset, found)}


def _stands_for(preset: Record, found: Record) -> bool:
    """Whether a preset represents a configuration, judging by the paper's name."""
    sections = {key: preset.get(key, default) for key, default in (("replay", "none"), ("data", "digits"))}
    names = {key: part.get("name") if isinstance(part, dict) else part for key, part in sections.items()}
    wanted = {"method": preset.get("method"), "replay.name": names["replay"], "data.name": names["data"]}
    wanted |= dict(flatten(preset.get("synthesis"), "synthesis")) if preset.get("synthesis") else {}
    same = all(found.get(key) == value for key, value in wanted.items())
    return same and bool(found.get("meta.enabled")) == bool(preset.get("meta"))


def _plain(name: object) -> str:
    return "".join(c for c in str(name).lower() if c.isalnum() or c == "+")
