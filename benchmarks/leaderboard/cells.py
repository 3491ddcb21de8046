"""A row's command and the configuration that it stands for, each made of the other; rows made of finished sweeps.

What identifies a cell is its resolved configuration. A row states it by the hash of its names, which is the same on
every machine, and by the command that resolves to it. A later version may resolve the command to something else: an
option that it has more changes the hash and no result, a changed default both. `complaints` says so, and `restated` is
for the first of these.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lra.benchmarks.comparison.estimates import estimate
from lra.benchmarks.comparison.groups import SHORT, Group, finished, grouped, heeded, run_folders, sweep_record
from lra.benchmarks.comparison.tables import machines
from lra.benchmarks.errors import UsageError, concerning, suggestion
from lra.benchmarks.files import NotPlain, parse_yaml
from lra.benchmarks.increment.configuration import PREFIX, IncrementConfig
from lra.benchmarks.leaderboard.board import Row, in_percent
from lra.benchmarks.records import INCREMENT, pick
from lra.benchmarks.runs.kind import DEFAULT, Cell, Configuration, Kind, kind_named, kind_of, parted
from lra.benchmarks.runs.runner import kind_in
from lra.benchmarks.setup.config import RunConfig, Tree
from lra.benchmarks.setup.places import data_kind
from lra.metrics.quantities import QUANTITIES

BEGUN = {DEFAULT: ("preset", "method", "replay", "meta", "dataset"), INCREMENT: ("benchmark", "strategy", "meta")}
"""Kinds of runs that a row may be of, and the flags that a command begins with: others' defaults depend on them."""


def cell_of(command: str) -> tuple[Kind, Cell]:
    """What a command does a run of: the kind, and the flags as in a grid.

    Raises:
        UsageError: for another command, and for what is none of its flags.
    """
    try:
        program, name, *words = shlex.split(command)
    except ValueError:
        program = name = ""
    if program != "lra-bench" or name not in BEGUN:
        raise UsageError(f"command {command!r}: it is not lra-bench {' or '.join(BEGUN)}")
    kind, cell = kind_named(name), Cell()
    left = iter(words)
    with concerning("command"):
        for word in left:
            flag = word.removeprefix("--").replace("-", "_")
            if flag not in kind.flags or flag in ("seed", "config") or not word.startswith("--"):
                raise UsageError(f"unknown option {word!r}; {suggestion(flag, [*kind.flags])}")
            text = "true" if flag == "meta" else next(left, "")
            key, equals, value = text.partition("=") if flag == "set" else (flag, "=", text)
            if not key or not equals or not value:
                raise UsageError(f"{word} {text!r}: a value is expected")
            try:
                plain = flag not in ("set", "meta")
                cell[flag if flag != "set" else f"set:{key}"] = value if plain else parse_yaml(value)
            except NotPlain as error:
                raise UsageError(f"{word} {text!r}: {error}") from None
    return kind, cell


def configuration_of(command: str) -> Configuration:
    """The configuration that a command resolves to.

    Raises:
        LraError: as the command itself.
    """
    kind, cell = cell_of(command)
    return kind.of_cell(cell)


def command_of(config: Configuration) -> str:
    """A command that resolves to a configuration, but for its seed and where it is computed.

    Raises:
        UsageError: if none does.
    """
    kind, tree = kind_of(config), config.tree()
    if kind.name not in BEGUN:
        raise UsageError(f"a row is a run of lra-bench {' or '.join(BEGUN)}, and not of {kind.name}")
    flags = {path: flag for flag, path in SHORT.items()} | {"schedule.steps": "steps"}
    usual = {"dataset": "digits", "benchmark": f"{PREFIX}digits", "meta": False, "preset": None}
    named = _named(config) | {"preset": tree.get("preset")}
    cell: Cell = {flag: named[flag] for flag in BEGUN[kind.name] if named[flag] != usual.get(flag, "")}
    begun = kind.of_cell(cell).tree()
    if tree.get("scale") != begun.get("scale"):
        cell["set:scale"] = tree["scale"]
    cell |= {
        f"set:{section}": {} for section, value in tree.items() if isinstance(value, dict) and section not in begun
    }
    for _ in range(3):  # What is set may change what is not.
        found = kind.of_cell(cell)
        if found.provisional == config.provisional:
            return _written(kind, cell)
        theirs = heeded(found.tree())
        for path, value in heeded(tree).items():
            if path not in theirs or theirs[path] != value:
                key = path.removeprefix("options.")
                flag = flags.get(path, path)
                cell[flag if flag in kind.flags else f"set:{key}"] = value
    raise UsageError("no command resolves to its configuration: run it with this version of lra")


def _written(kind: Kind, cell: Cell) -> str:
    flags, settings = parted(cell)
    words = [f"--{flag}" if value is True else f"--{flag} {shlex.quote(str(value))}" for flag, value in flags.items()]
    words += [f"--set {shlex.quote(f'{key}={_yaml(value)}')}" for key, value in settings.items()]
    return " ".join(["lra-bench", kind.name, *words])


def _yaml(value: object) -> str:
    """A value as YAML has it on a line."""
    return yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]


def _named(config: Configuration) -> Tree:
    """What a configuration is called after: its flags by name."""
    if isinstance(config, IncrementConfig):
        named = {"strategy": config.strategy, "meta": config.meta}
        return named | {"student": config.model, "benchmark": config.benchmark}
    assert isinstance(config, RunConfig)
    networks = {"teacher": config.teacher.network, "student": config.student.network, "dataset": config.data.name}
    return {"method": config.method, "replay": config.replay["name"], "meta": config.meta.enabled} | networks


def facts(config: Configuration) -> Tree:
    """The columns of a row that its configuration tells.

    Raises:
        UsageError: for one of files, or code, that only its user has.
    """
    kind, named = kind_of(config), _named(config)
    dataset = named.get("benchmark") or named["dataset"]
    own = {key: place for key, place in kind.places(config.tree(), Path()).items() if place}
    if data_kind(name := str(dataset).removeprefix(PREFIX)) == name:
        own = {key: place for key, place in own.items() if key not in ("data.name", "benchmark")}
    if own:
        raise UsageError(f"{next(iter(own))}: it is your own, and nobody else could repeat it: take what all have")
    found = {column: named.get(column, "") for column in ("method", "replay", "meta", "teacher", "student")}
    found |= {"method": named.get("strategy") or named["method"], "dataset": dataset}
    return found | {"steps": config.student_steps, "hash": config.provisional}


def complaints(rows: dict[str, Row]) -> Iterator[str]:
    """What rows say that their commands do not resolve to, one line each.

    Raises:
        LraError: for a command that does not resolve at all.
    """
    for name, row in rows.items():
        for column, value in _told(name, row).items():
            if getattr(row, column) != value:
                yield f"{name}: {column} is {getattr(row, column)!r}, and its command resolves to {value!r}"


def restated(rows: dict[str, Row]) -> list[Row]:
    """Rows that say what their commands resolve to; what was measured stays.

    Raises:
        LraError: for a command that does not resolve at all.
    """
    return [row.model_copy(update=_told(name, row)) for name, row in rows.items()]


def _told(name: str, row: Row) -> Tree:
    with concerning(name):
        return facts(configuration_of(row.command))


def grid_of(row: Row, seeds: Sequence[int], device: str | None = None) -> dict[str, Any]:
    """The grid whose runs are a row's cell with these seeds.

    Raises:
        LraError: for a command that does not resolve.
        UsageError: if it resolves to another cell.
    """
    kind, cell = cell_of(row.command)
    here = kind.of_cell(cell).provisional
    if here != row.hash:
        raise UsageError(f"its command resolves to {here} and the row says {row.hash}: see lra-bench leaderboard check")
    flags, settings = parted({key: [value] if isinstance(value, list) else value for key, value in cell.items()})
    where = {} if device is None else {"device": device}
    return {"kind": kind.name, "seed": list(seeds)} | flags | where | ({"set": settings} if settings else {})


def of_sweep(place: Path, quantity: str = "accuracy") -> list[Row]:
    """A row for each configuration of a finished sweep, or of a folder with runs.

    Raises:
        MissingInput: for a place without runs.
        UsageError: if some are not finished, or their cells cannot be rows.
    """
    in_percent(quantity)
    runs, unfinished = finished(run_folders([place]))
    if unfinished:
        raise UsageError(
            f"{unfinished} of {unfinished + len(runs)} runs in {place} are not finished: finish them first"
        )
    if stopped := [run for run in runs if run.stopped]:
        raise UsageError(f"run {stopped[0].folder} was stopped by {stopped[0].stopped}: a row has whole runs")
    record = sweep_record(place / "sweep.json") if (place / "sweep.json").is_file() else {}
    source = str(record.get("file") or place.name)
    groups = grouped(runs)
    told = [_cell_told(group) for group in groups]
    named = zip(groups, told, names(told), strict=True)
    return [Row(name=name, source=source, **cell, **_measured(group, quantity)) for group, cell, name in named]


def _cell_told(group: Group) -> Tree:
    """The columns on the cell of a group."""
    folder = next(iter(group.runs.values())).folder
    with concerning(group.label):
        config = kind_in(folder).stored(folder)
        return facts(config) | {"command": command_of(config)}


def _measured(group: Group, quantity: str) -> Tree:
    """The columns on what a group's runs came to, and what they ran on."""
    runs, values = list(group.runs.values()), group.values(QUANTITIES[quantity])
    if len(values) < len(runs):
        raise UsageError(f"{group.label}: {len(runs) - len(values)} of its runs have no {quantity}")
    found = estimate([*values.values()], in_percent(quantity).within)
    seconds = group.values(QUANTITIES["seconds"]).values()
    ours = ", ".join(sorted({str(pick(run.env, "versions", "lra")) for run in runs}))
    return {
        "quantity": quantity,
        "seeds": tuple(values),
        **{column: getattr(found, column) for column in ("mean", "sd", "low", "high")},
        "seconds": sum(seconds) / len(seconds) if seconds else None,
        "hardware": machines(runs),
        "version": ours,
    }


def names(told: Sequence[Tree]) -> list[str]:
    """A name for each cell of a file: method, replay and LRA step, and what its command has and not all others have."""
    settings = [_beside(one["command"]) for one in told]
    found = []
    for one, own in zip(told, settings, strict=True):
        cell = "+".join(filter(None, [one["method"], one["replay"], "meta" * one["meta"]]))
        apart = [part for part in own if not all(part in others for others in settings)]
        found.append(re.sub(r"[^\w.,:=+-]+", "-", ",".join([cell, *apart]))[:200])
    return found


def _beside(command: str) -> list[str]:
    """What a command says beside what it begins with."""
    kind, cell = cell_of(command)
    told = {key.removeprefix("set:"): value for key, value in cell.items() if key not in BEGUN[kind.name]}
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in told.items()]
