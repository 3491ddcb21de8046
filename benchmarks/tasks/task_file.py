"""The file of a stream of tasks: what all tasks share, what is carried, and the tasks in order.

method: aeahl-rg
replay: pool
reuse: [anew, fix]         # a chain of tasks for each mode and seed
seed: [0, 1, 2]
carry: [replay]            # in addition to what reuse carries; or generator, for any method
tasks:
  - {name: zeros to fours, dataset: digits-0-4, teacher: resnet8}
  - {name: turned, dataset: digits-turned, teacher: wrn10-1, set: {student.lr: 0.02}}

A chain is a run; the ``config.yaml`` in its folder is such a file for that chain alone, with every option of each task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import ValidationError

from lra.benchmarks.errors import UsageError, concerning, suggestion
from lra.benchmarks.records import GENERATOR, REPLAY, TASKS, flatten
from lra.benchmarks.runs.distillation import DISTILLATION
from lra.benchmarks.runs.kind import Cell
from lra.benchmarks.setup.config import RunConfig, Tree, fingerprint
from lra.benchmarks.setup.datasets import data_of
from lra.benchmarks.setup.layers import checked, expanded, explain, merged, parse_assignment
from lra.benchmarks.setup.places import placed_layer
from lra.benchmarks.setup.resolution import importing, origin, read_options, restored
from lra.options import Options, Reuse, Seed

Carried = Literal["generator", "replay"]

KEYS = (*DISTILLATION.flags, "threads")
"""What a file of tasks may set for all tasks or for one: the flags of ``lra-bench run``."""
OWN = ("kind", "tasks", "carry", "reuse", "code")
CARRIED: tuple[str, ...] = get_args(Carried)
MODES: tuple[str, ...] = get_args(Reuse)


@dataclass(frozen=True)
class Chain:
    """The configuration of one pass through the tasks.

    Attributes:
        reuse: how a reusable generator is taken over from task to task.
        carry: what each task takes over whole, in addition.
        names: of the tasks, in order.
        runs: what each would be alone.
    """

    reuse: str
    carry: tuple[str, ...]
    names: tuple[str, ...]
    runs: tuple[RunConfig, ...]

    @property
    def seed(self) -> int:
        """Seed of every task."""
        return self.runs[0].seed

    @property
    def device(self) -> str:
        """Where the first task is computed."""
        return self.runs[0].device

    @property
    def threads(self) -> int | None:
        """Torch threads of the first task."""
        return self.runs[0].threads

    @property
    def student_steps(self) -> int:
        """Steps of all students."""
        return sum(run.student_steps for run in self.runs)

    @property
    def code(self) -> dict[str, str]:
        """Folders of the user's own modules in any task."""
        return {top: folder for run in self.runs for top, folder in (run.code or {}).items()}

    @property
    def label(self) -> str:
        """The first part of a run folder's path."""
        first = self.runs[0]
        meta = "+meta" if first.meta.enabled else ""
        return "-".join([TASKS, f"{first.method}+{first.replay['name']}{meta}", self.reuse, *self.carry])

    @property
    def place(self) -> str:
        """Its place among the chains of its file, for people."""
        return f"reuse {self.reuse}, seed {self.seed}"

    @property
    def settings(self) -> Tree:
        """Its own settings, without those of its tasks."""
        return {"kind": TASKS, "reuse": self.reuse, "carry": list(self.carry), "tasks": list(self.names)}

    @property
    def provisional(self) -> str:
        """A fingerprint by names, for chains whose teachers and data have not been read yet."""
        return fingerprint({"settings": self.settings, "tasks": [run.provisional for run in self.runs]})

    def tree(self) -> Tree:
        """The configuration as plain data: a file of tasks."""
        tasks = [
            {"name": name, "set": {key: value for key, value in run.tree().items() if key not in ("seed", "code")}}
            for name, run in zip(self.names, self.runs, strict=True)
        ]
        return self.settings | {"seed": self.seed, "tasks": tasks} | ({"code": self.code} if self.code else {})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some options of all tasks changed."""
        return replace(self, runs=tuple(run.model_copy(update=update, deep=deep) for run in self.runs))

    def at(self, index: int, left: Path | None = None) -> RunConfig:
        """The configuration of a task when its turn comes.

        Args:
            index: its place, from 0.
            left: the folder of the run before it, if there is one.

        Raises:
            UsageError: if that run left nothing of what is to be carried, or the method cannot take it.
        """
        carry: Tree = {"keep_replay": True} if "replay" in self.carry else {}
        reused = left is not None and self.reuse != "anew"
        if left is not None:
            wanted = {
                "generator": GENERATOR if reused or "generator" in self.carry else None,
                "replay": REPLAY if "replay" in self.carry else None,
            }
            carry |= {key: self._left(left / name, index - 1) for key, name in wanted.items() if name}
        more = ({"carry": carry} if carry else {}) | ({"synthesis": {"reuse": self.reuse}} if reused else {})
        with concerning(f"task {self.names[index]!r}"):
            return checked(merged(self.runs[index].tree(), more))

    def _left(self, file: Path, index: int) -> str:
        if not file.is_file():
            raise UsageError(f"task {self.names[index]!r} left no {file.name}: its method or replay has none")
        return str(file.absolute())


class Stored(Options):
    """A chain as `Chain.tree` gives it."""

    class Task(Options):
        """A task of it."""

        name: str
        set: Tree

    kind: Literal["tasks"]
    reuse: Reuse
    carry: list[Carried]
    seed: Seed
    tasks: list[Task]
    code: dict[str, str] | None = None


def chain_of(tree: Tree, make: Callable[[Tree], RunConfig]) -> Chain:
    """The chain whose `Chain.tree` is ``tree``; ``make`` makes the configuration of a task from its tree.

    Raises:
        UsageError: if it is not the tree of a chain.
    """
    try:
        found = Stored.model_validate(tree)
    except ValidationError as error:
        raise UsageError(explain(error, "", Stored)) from None
    if not found.tasks:
        raise UsageError("the list of tasks is empty")
    runs = []
    for task in found.tasks:
        with concerning(f"task {task.name!r}"):
            runs.append(make(task.set | {"seed": found.seed} | ({"code": found.code} if found.code else {})))
    return Chain(found.reuse, tuple(found.carry), tuple(task.name for task in found.tasks), tuple(runs))


def stored_chain(folder: Path) -> Chain:
    """The configuration that a run folder was made with.

    Raises:
        UsageError: if it is invalid.
    """
    file = folder.absolute() / "config.yaml"

    def whole(tree: Tree) -> RunConfig:
        return importing(restored(placed_layer(expanded(tree), [file.parent, Path()])))

    with concerning(origin("config", file)):
        return chain_of(read_options(file, "config"), whole)


@dataclass(frozen=True)
class TaskPlan:
    """What a file of tasks asks for.

    Attributes:
        tree: the file as plain data.
        chains: mode by mode, seed by seed.
        base: folder in which relative paths of the file are looked up, before the working directory.
    """

    tree: Tree
    chains: tuple[Chain, ...]
    base: Path


def read_plan(file: Path, given: Mapping[str, Any], assignments: Sequence[str] = ()) -> TaskPlan:
    """What a file asks for, with options ``given`` by name and ``assignments``, KEY=VALUE, that win over its own.

    Raises:
        LraError: as `plan`, and if there is no such file.
    """
    settings = dict(pair for text in assignments for pair in flatten(parse_assignment(text)))
    words = [f"--{key} {value}" for key, value in given.items()]
    options = " ".join([*words, *(f"--set {text}" for text in assignments)])
    tree = read_options(file, TASKS) | dict(given)
    with concerning(f"{TASKS} {file}" + (f" with {options}" if options else "")):
        return plan(with_settings(tree, settings), file.parent)


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

    For a record of such a file, ``code`` names the folders its modules were in; the file of a chain names them itself.

    Raises:
        UsageError: for anything wrong, in one line.
        MissingInput: for data that are not there.
    """
    code = _mapping("code", tree.get("code")) or code
    for key in tree:
        if key not in (*KEYS, *OWN):
            raise UsageError(f"unknown key {key!r}; {suggestion(str(key), (*KEYS, *OWN))}")
    if tree.get("kind", TASKS) != TASKS:
        raise UsageError(f"kind = {tree['kind']!r}: a file of tasks is of kind {TASKS}")
    tasks = tree.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise UsageError("the list of tasks is empty: give tasks: [{dataset: ..., teacher: ...}, ...]")
    shared = {key: value for key, value in tree.items() if key not in (*OWN, "seed")}
    named = [_task(index, task, shared) for index, task in enumerate(tasks)]
    names = tuple(name for name, _ in named)
    if len(set(names)) < len(names):
        raise UsageError(f"two tasks are called {max(names, key=names.count)!r}: give each its own name")
    carry = tuple(dict.fromkeys(_choices("carry", tree.get("carry") or [], CARRIED)))
    modes = _choices("reuse", tree.get("reuse") or "anew", MODES)
    place = (base or Path()).absolute()
    chains = []
    for mode in modes:
        for seed in _seeds(tree.get("seed", 0)):
            runs = tuple(_run(name, cell | {"seed": seed}, mode, place, code) for name, cell in named)
            chains.append(Chain(mode, carry, names, runs))
    for name, run in zip(names, chains[0].runs, strict=True):  # Now, not only when its turn comes.
        with concerning(f"task {name!r}"):
            DISTILLATION.require(run)
            data_of(run.data)
    return TaskPlan(dict(tree), tuple(chains), place)


def _run(name: str, cell: Cell, mode: str, base: Path, code: Mapping[str, str] | None) -> RunConfig:
    """A task alone, whose method must support the mode."""
    with concerning(f"task {name!r}"):
        if mode != "anew":
            DISTILLATION.of_cell(cell | {"set:synthesis.reuse": mode}, base, code)
        return DISTILLATION.of_cell(cell, base, code)


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
    words = value.split(",") if isinstance(value, str) else value
    chosen = [str(choice).strip() for choice in _listed(words)]
    for choice in chosen:
        if choice not in known:
            raise UsageError(f"{key} = {choice!r}; choose from {', '.join(known)}")
    return chosen


def _seeds(value: object) -> list[int]:
    seeds = [seed for seed in _listed(value) if isinstance(seed, int) and not isinstance(seed, bool)]
    if not seeds or seeds != _listed(value):
        raise UsageError(f"seed = {value!r}: a whole number is expected, or a list of whole numbers")
    return seeds


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
