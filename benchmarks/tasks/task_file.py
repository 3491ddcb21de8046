"""The file of a stream of tasks: what all tasks share, what is carried, and the tasks in order.

method: aeahl-rg
replay: pool
reuse: [anew, fix]         # a chain of tasks for each mode and seed
seed: [0, 1, 2]
carry: [replay]            # beside what reuse carries; or generator, for any method
tasks:
  - {name: zeros to fours, dataset: digits-0-4, teacher: resnet8}
  - {name: turned, dataset: digits-turned, teacher: wrn10-1, set: {student.lr: 0.02}}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from lra.benchmarks.errors import UsageError, concerning, suggestion
from lra.benchmarks.runs.distillation import DISTILLATION
from lra.benchmarks.runs.kind import Cell
from lra.benchmarks.setup.config import DataOptions, RunConfig, Tree
from lra.benchmarks.setup.datasets import data_of
from lra.options import Reuse

KEYS = (*DISTILLATION.flags, "threads")
"""What a file of tasks may name for all of them, or for one: the flags of ``lra-bench run``."""
OWN = ("tasks", "carry", "reuse")
CARRIED = ("generator", "replay")
MODES: tuple[str, ...] = get_args(Reuse)


@dataclass(frozen=True)
class Chain:
    """One pass through the tasks."""

    reuse: str
    seed: int


@dataclass(frozen=True)
class TaskPlan:
    """What a file of tasks asks for.

    Attributes:
        tree: the file.
        names: of the tasks, in order.
        cells: of the tasks; flags of ``lra-bench run`` and settings, see `lra.benchmarks.sweeps.grid`.
        carry: what each task takes over whole, beside the parts that ``reuse`` names.
        chains: mode by mode, seed by seed.
        base: where relative paths in the file count from; the working directory if nothing is there.
        code: folders of the user's own modules in it, once they are found.
    """

    tree: Tree
    names: tuple[str, ...]
    cells: tuple[Cell, ...]
    carry: frozenset[str]
    chains: tuple[Chain, ...]
    base: Path
    code: Mapping[str, str] | None = None

    def config(self, index: int, chain: Chain, more: Mapping[str, Any] | None = None) -> RunConfig:
        """The configuration of a task, with ``more`` settings.

        Raises:
            UsageError: in one line that names the task.
        """
        settings = {f"set:{key}": value for key, value in (more or {}).items()}
        with concerning(f"task {self.names[index]!r}"):
            return DISTILLATION.of_cell(self.cells[index] | {"seed": chain.seed} | settings, self.base, self.code)


def with_settings(tree: Tree, settings: Mapping[str, Any]) -> Tree:
    """A file of tasks with ``settings`` by their paths, which win over those of the file and of its tasks."""
    tasks = tree.get("tasks")
    if not settings or not isinstance(tasks, list):
        return tree
    told = [
        task | {"set": _mapping("set", task.get("set")) | dict(settings)} if isinstance(task, dict) else task
        for task in tasks
    ]
    return tree | {"tasks": told}


def plan(tree: Mapping[str, Any], base: Path | None = None, code: Mapping[str, str] | None = None) -> TaskPlan:
    """What a file of tasks in the folder ``base`` asks for, checked as far as it can be before the first task.

    Of a record of such a file, ``code`` says where its modules were.

    Raises:
        UsageError: for anything wrong, in one line.
        MissingInput: for data that are not there.
    """
    for key in tree:
        if key not in (*KEYS, *OWN):
            raise UsageError(f"unknown key {key!r}; {suggestion(str(key), (*KEYS, *OWN))}")
    tasks = tree.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise UsageError("the list of tasks is empty: give tasks: [{dataset: ..., teacher: ...}, ...]")
    shared = {key: value for key, value in tree.items() if key not in (*OWN, "seed")}
    named = tuple(_task(index, task, shared) for index, task in enumerate(tasks))
    names, cells = tuple(name for name, _ in named), tuple(cell for _, cell in named)
    if len(set(names)) < len(names):
        raise UsageError(f"two tasks are called {max(names, key=names.count)!r}: names tell them apart")
    carry = _choices("carry", tree.get("carry") or [], CARRIED)
    modes = _choices("reuse", tree.get("reuse") or "anew", MODES)
    chains = tuple(Chain(mode, seed) for mode in modes for seed in _seeds(tree.get("seed", 0)))
    planned = TaskPlan(dict(tree), names, cells, frozenset(carry), chains, (base or Path()).absolute(), code)
    found: dict[str, str] = {}
    for chain in chains:
        for index in range(len(cells)):
            more = {} if chain.reuse == "anew" else {"synthesis.reuse": chain.reuse}
            config = planned.config(index, chain, more)
            found |= config.code or {}
            if chain == chains[0]:
                _find(config.data, names[index])
    return replace(planned, code=found)


def _find(options: DataOptions, task: str) -> None:
    """Raise `LraError` if the data of a task are not there: not only when it is its turn, after all others."""
    with concerning(f"task {task!r}"):
        data = data_of(options)
        if options.test:
            data.require()


def _task(index: int, task: object, shared: Tree) -> tuple[str, Cell]:
    if not isinstance(task, Mapping):
        raise UsageError(f"task {index + 1} is {task!r}: write it as {{dataset: ..., teacher: ...}}")
    known = (*KEYS, "name")
    for key in task:
        if key not in known or key == "seed":
            raise UsageError(f"task {index + 1}: unknown key {key!r}; {suggestion(str(key), known)}")
    cell = shared | {key: value for key, value in task.items() if key != "name"}
    settings = _mapping("set", shared.get("set")) | _mapping("set", task.get("set"))
    flags = {key: value for key, value in cell.items() if key != "set"}
    return str(task.get("name", index + 1)), flags | {f"set:{key}": value for key, value in settings.items()}


def _mapping(key: str, value: object) -> Tree:
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    raise UsageError(f"{key} = {value!r}: write it as {key}: {{section.key: value}}")


def _choices(key: str, value: object, known: Sequence[str]) -> list[str]:
    chosen = [str(choice) for choice in _listed(value)]
    for choice in chosen:
        if choice not in known:
            raise UsageError(f"{key} = {choice!r}; choose from {', '.join(known)}")
    return chosen


def _seeds(value: object) -> list[int]:
    seeds = [seed for seed in _listed(value) if isinstance(seed, int) and not isinstance(seed, bool)]
    if not seeds or seeds != _listed(value):
        raise UsageError(f"seed = {value!r}: a whole number is expected, or a list of some")
    return seeds


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
