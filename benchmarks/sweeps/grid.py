"""A grid of runs: lists are axes, scalars are fixed.

method: [predfkd, dfq]
replay: [none, memory]
meta: [false, true]
seed: [0, 1, 2]
steps: 400
set: {student.lr: [0.03, 0.1]}

Combinations that give the same run count once, such as ``replay: paper`` and that replay by its name. With
``kind: increment`` or ``kind: tasks`` it is a grid of another kind of run, whose flags are the axes. ``also`` holds
further grids, each of which takes from the grid around it what it does not name itself:

kind: increment
strategy: [naive, generative]
also: [{strategy: generative, set: {bn: 0}}]
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lra.benchmarks.errors import UsageError, concerning, suggestion
from lra.benchmarks.runs.kind import DEFAULT, Cell, Configuration, kind_named
from lra.benchmarks.setup.layers import parse_assignment
from lra.benchmarks.setup.resolution import NothingRetained

MOST = 100_000
"""Most combinations in a grid."""


@dataclass(frozen=True)
class Planned:
    """One run of a grid.

    Attributes:
        label: where it stands on the grid's axes.
        config: its resolved configuration.
        cell: its combination; empty if the run is not from a grid.
    """

    label: str
    config: Configuration
    cell: Cell = field(default_factory=dict)


def expand(grid: Mapping[str, Any]) -> list[Cell]:
    """All combinations of a grid's axes, in order, the last axis fastest; then those of the grids in ``also``.

    Raises:
        UsageError: for an unknown key, an axis that is empty or holds mappings, or more than `MOST` combinations.
    """
    kind = kind_named(grid.get("kind", DEFAULT))
    own = {key: value for key, value in grid.items() if key not in ("kind", "also")}
    for key in own:
        if key not in kind.flags:
            known = (*kind.flags, "kind", "also")
            raise UsageError(f"unknown key {key!r}; {suggestion(str(key), known)}")
    settings = own.get("set") or {}
    if not isinstance(settings, Mapping):
        raise UsageError(f"set = {settings!r}: write it as set: {{section.key: [values]}}")
    if "threads" in settings:
        raise UsageError("set: threads: the sweep decides how many threads a run may use: give --threads")
    flat = {k: v for k, v in own.items() if k != "set"} | {f"set:{k}": v for k, v in settings.items()}
    axes = [_axis(key, value) for key, value in flat.items()]
    if math.prod(map(len, axes)) > MOST:
        raise UsageError(f"it holds {math.prod(map(len, axes)):,} combinations: {MOST:,} at most")
    cells = [dict(choice) for choice in itertools.product(*axes)]
    others = grid.get("also") or []
    if not isinstance(others, list) or not all(isinstance(other, Mapping) and "also" not in other for other in others):
        raise UsageError("also: a list of grids is expected, such as also: [{seed: [0, 1]}]")
    kept = {key: value for key, value in grid.items() if key != "also"}
    return cells + [cell for other in others for cell in expand(kept | other)]


def with_settings(grid: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The grid with ``assignments``, texts ``section.key=value``, which win over its settings and those in ``also``.

    Raises:
        UsageError: for any other text.
    """
    given: dict[str, Any] = {}
    for text in assignments:
        path = text.partition("=")[0].strip()
        value: Any = parse_assignment(text)
        for key in path.split("."):
            value = value[key]
        given[path] = value
    return _over(grid, given) if given else dict(grid)


def _over(grid: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    own, others = grid.get("set") or {}, grid.get("also") or []
    if not isinstance(own, Mapping) or not isinstance(others, list):  # `expand` refuses it.
        return dict(grid)
    alone = [_over(other, given) if isinstance(other, Mapping) and "set" in other else other for other in others]
    return dict(grid) | {"set": {**own, **given}} | ({"also": alone} if others else {})


def _axis(key: str, value: Any) -> list[tuple[str, Any]]:
    choices = value if isinstance(value, list) else [value]
    if not choices:
        raise UsageError(f"{key} is an empty list: give it values or leave it out")
    wrong = next((c for c in choices if isinstance(c, Mapping | list) and not key.startswith("set:")), None)
    if wrong is not None:
        raise UsageError(f"{key} holds {wrong!r}: a list of plain values is expected")
    return [(key, choice) for choice in choices]


def plan(grid: Mapping[str, Any], base: Path | None = None) -> list[Planned]:
    """The runs of a grid, each once; relative paths in it are looked up in its folder ``base`` first.

    The LRA step has nothing to act on without a replay, nor in increments with a strategy that is not data-free: such a
    run would repeat its neighbour, or is impossible, and is left out.

    Raises:
        UsageError: if a combination is invalid, named by its place on the axes, or if no run is left.
    """
    cells, kind = expand(grid), kind_named(grid.get("kind", DEFAULT))
    keys = dict.fromkeys(key for cell in cells for key in cell)
    axes = [key for key in keys if len({repr(cell.get(key)) for cell in cells}) > 1]
    runs: dict[tuple[str, int], Planned] = {}
    for cell in cells:
        label = " ".join(f"{key.removeprefix('set:')}={_text(cell[key])}" for key in axes if key in cell)
        try:
            with concerning(label) if label else nullcontext():
                config = kind.of_cell(cell, base)
                same = config.provisional, config.seed
        except NothingRetained:
            continue
        runs.setdefault(same, Planned(label or "the run", config, cell))
    if not runs:
        raise UsageError("meta: true needs a replay, such as replay: memory")
    return list(runs.values())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
