"""A grid of runs: lists are axes, scalars are fixed.

method: [predfkd, dfq]
replay: [none, memory]
meta: [false, true]
seed: [0, 1, 2]
steps: 400
set: {student.lr: [0.03, 0.1]}

``replay: paper`` is the replay of each method's own paper. Combinations that come to the same run are one.
"""

import itertools
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lra.benchmarks.errors import UsageError, concerning, suggestion
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.flags import FLAGS
from lra.benchmarks.setup.resolution import NothingRetained, configuration
from lra.strategies.methods import METHODS

KEYS = tuple(flag.name for flag in FLAGS if flag.name != "threads")
"""What a grid may name: the flags of ``lra-bench run``, but for ``--threads``, which is the sweep's."""

MOST = 100_000
"""Combinations in a grid at most."""

Cell = dict[str, Any]
"""One combination: flags by name, and settings as ``set:section.key``."""


@dataclass(frozen=True)
class Planned:
    """One run of a grid.

    Attributes:
        label: where it stands on the grid's axes.
        config: its resolved configuration.
    """

    label: str
    config: RunConfig


def expand(grid: Mapping[str, Any]) -> list[Cell]:
    """All combinations of a grid's axes, in order, the last axis fastest.

    Raises:
        UsageError: for an unknown key, or an axis that is empty or holds mappings.
    """
    for key in grid:
        if key not in KEYS:
            raise UsageError(f"unknown key {key!r}; {suggestion(str(key), KEYS)}")
    settings = grid.get("set") or {}
    if not isinstance(settings, Mapping):
        raise UsageError(f"set = {settings!r}: write it as set: {{section.key: [values]}}")
    if "threads" in settings:
        raise UsageError("set: threads: how many a run may use is the sweep's affair: give --threads")
    flat = {k: v for k, v in grid.items() if k != "set"} | {f"set:{k}": v for k, v in settings.items()}
    axes = [_axis(key, value) for key, value in flat.items()]
    if math.prod(map(len, axes)) > MOST:
        raise UsageError(f"it holds {math.prod(map(len, axes)):,} combinations: {MOST:,} at most")
    return [dict(choice) for choice in itertools.product(*axes)]


def _axis(key: str, value: Any) -> list[tuple[str, Any]]:
    choices = value if isinstance(value, list) else [value]
    if not choices:
        raise UsageError(f"{key} is an empty list: give it values or leave it out")
    wrong = next((c for c in choices if isinstance(c, Mapping | list) and not key.startswith("set:")), None)
    if wrong is not None:
        raise UsageError(f"{key} holds {wrong!r}: a list of plain values is expected")
    return [(key, choice) for choice in choices]


def plan(grid: Mapping[str, Any], base: Path | None = None) -> list[Planned]:
    """The runs of a grid, each once; relative paths in it count from its folder ``base`` first.

    The meta step without a replay has nothing to act on: such a run would repeat its neighbour and is left out.

    Raises:
        UsageError: if a combination is no valid configuration, named by where it stands on the axes.
    """
    cells = expand(grid)
    axes = [key for key in cells[0] if len({repr(cell[key]) for cell in cells}) > 1]
    runs: dict[tuple[str, int], Planned] = {}
    for cell in cells:
        label = " ".join(f"{key.removeprefix('set:')}={_text(cell[key])}" for key in axes)
        try:
            with concerning(label) if label else nullcontext():
                config = resolve(cell, base)
                same = config.provisional, config.seed
        except NothingRetained:
            continue
        runs.setdefault(same, Planned(label or "the run", config))
    if not runs:
        raise UsageError("meta: true needs a replay, such as replay: memory")
    return list(runs.values())


def resolve(cell: Cell, base: Path | None = None, code: Mapping[str, str] | None = None) -> RunConfig:
    """The configuration of one combination, of a file in the folder ``base``; ``code`` as `configuration` takes it.

    Raises:
        UsageError: as for ``lra-bench run``.
    """
    flags = {key: value for key, value in cell.items() if not key.startswith("set:")}
    settings = {key.removeprefix("set:"): value for key, value in cell.items() if key.startswith("set:")}
    if flags.get("replay") == "paper":
        flags["replay"] = _of_the_paper(flags.get("method"))
    return configuration(**flags, set=settings, base=base, code=code)


def _of_the_paper(method: object) -> str:
    if method not in METHODS:
        raise UsageError(f"replay: paper belongs to a method and {method!r} is none: name methods in the grid")
    return METHODS[str(method)].memory


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
