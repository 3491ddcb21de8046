"""The kind of run that does tasks one after another: a chain of ``lra-bench tasks``, of one seed and one way of reuse.

Its tasks are ordinary runs in folders beside its own, which chains that start alike share. So a chain has no state to
save: when it is resumed, it asks for its tasks again and finds the finished ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.benchmarks.errors import LraError, Resumable, UsageError, concerning
from lra.benchmarks.files import sha256
from lra.benchmarks.progress import Introduction
from lra.benchmarks.records import TASKS, pick
from lra.benchmarks.runs.distillation import DISTILLATION
from lra.benchmarks.runs.kind import Cell, Kind, Prepared, Tracker, Tree, Trial, parted
from lra.benchmarks.runs.run_folder import SCHEMA, MetricsFile, RunFolder
from lra.benchmarks.runs.runner import run
from lra.benchmarks.setup.config import Identity, RunConfig
from lra.benchmarks.setup.places import placed
from lra.benchmarks.setup.resolution import read_options
from lra.benchmarks.tasks.chains import summary, tasks_of
from lra.benchmarks.tasks.task_file import KEYS, Chain, chain_of, plan, stored_chain, with_settings
from lra.closed_loop import ClosedLoop

if TYPE_CHECKING:
    from lra.benchmarks.runs.processes import Processes


class Tasks(Kind):
    """Runs of a `Chain`."""

    name = TASKS
    flags = ("file", "reuse", "carry", *(key for key in KEYS if key != "threads"))

    def of_cell(self, cell: Cell, base: Path | None = None) -> Chain:
        """The chain of a combination, which wins over the file of tasks that it names as ``file``."""
        flags, settings = parted(cell)
        if "file" not in flags:
            raise UsageError("file is missing: name the file of tasks, such as file: tasks.yaml")
        file = Path(placed(str(flags.pop("file")), "file", [Path()] if base is None else [base, Path()]))
        tree = read_options(file, TASKS) | flags
        with concerning(f"{TASKS} {file}"):
            chains = plan(with_settings(tree, settings), file.parent).chains
            if len(chains) > 1:
                raise UsageError(f"it has {len(chains)} chains: name the reuse and seed in the grid, or lists of them")
        return chains[0]

    def stored(self, folder: Path) -> Chain:
        """The configuration that ``folder`` was made with."""
        return stored_chain(folder)

    def trusted(self, tree: Tree) -> Chain:
        """A configuration from this program's own plain data."""
        return chain_of(tree, DISTILLATION.trusted)

    def threads(self, config: Chain) -> int:
        """The threads of the largest task."""
        return max(map(DISTILLATION.threads, config.runs))

    def identity(self, config: Chain, digest: Callable[[Path], str] = sha256) -> Identity | None:
        """Its own settings and what identifies each task; ``None`` while a teacher is not trained yet."""
        parts = [part for part in (DISTILLATION.identity(one, digest) for one in config.runs) if part is not None]
        return _identity(config, parts) if len(parts) == len(config.runs) else None

    def require(self, config: Chain) -> None:
        """Raise `MissingInput` for missing test sets."""
        for name, one in zip(config.names, config.runs, strict=True):
            with concerning(f"task {name!r}"):
                DISTILLATION.require(one)

    def notes(self, config: Chain) -> Iterable[str]:
        """Notes on the data of every task."""
        return dict.fromkeys(note for one in config.runs for note in DISTILLATION.notes(one))

    def cost(self, config: Chain) -> dict[str, int]:
        """Steps, experiences and images of all tasks."""
        costs = list(map(DISTILLATION.cost, config.runs))
        return {key: sum(cost[key] for cost in costs) for key in costs[0]}

    def prepare(
        self, config: Chain, introduction: Introduction, group: Processes, trackers: Sequence[Tracker], quiet: bool
    ) -> Prepared:
        """Train the teachers that are missing."""
        if group.count > 1:
            raise UsageError(f"lra-bench {TASKS} is for one process: start it without torchrun")
        identity = self.identity(config)
        if identity is None:
            named = self.named(config, {})
            assert named is not None
            _, identity = named

        def build(folder: RunFolder) -> InTurn:
            return InTurn(config, folder, quiet)

        return Prepared(config, config.label, identity, build)

    def named(self, config: Chain, made: dict[str, Any], train: bool = True) -> tuple[str, Identity] | None:
        """Name a chain by its tasks, whose teachers are made once for all that share them."""
        parts: list[Identity] = []
        for name, one in zip(config.names, config.runs, strict=True):
            with concerning(f"task {name!r}"):
                found = DISTILLATION.named(one, made, train)
            if found is None:
                return None
            parts.append(found[1])
        return config.label, _identity(config, parts)

    def shared(self, config: Chain) -> str:
        """The teachers and data of all tasks."""
        return " ".join(dict.fromkeys(map(DISTILLATION.shared, config.runs)))

    def kept(self, config: Chain) -> Iterable[Path]:
        """The teachers of its tasks."""
        return (file for one in config.runs for file in DISTILLATION.kept(one))

    def trial(
        self, config: Chain, out: Path, began: float | None = None, introduction: Introduction | None = None
    ) -> Trial:
        """Do the first steps of every task."""
        found = list(trials(config, out))
        if introduction is not None:
            introduction.say()
        teachers = {DISTILLATION.shared(one): tried.teacher for one, tried in zip(config.runs, found, strict=True)}
        seconds = [tried.seconds for tried in found]
        parts = zip(config.names, found, strict=True)
        return Trial(
            start_up=sum(tried.start_up for tried in found),
            teacher=sum(teachers.values()),
            seconds=None if None in seconds else sum(filter(None, seconds)),
            basis=next((tried.basis for tried in found if tried.seconds is None), f"{len(found)} tasks"),
            peak_memory_mb=max(tried.peak_memory_mb for tried in found),
            parameters={f"{name}: {part}": n for name, tried in parts for part, n in tried.parameters.items()},
            threads=max(tried.threads for tried in found),
        )

    def places(self, tree: Tree, base: Path) -> Mapping[str, Any]:
        """The places of every task."""
        tasks = tree["tasks"] if isinstance(tree.get("tasks"), list) else []
        each = (found if isinstance(found := pick(task, "set"), dict) else {} for task in tasks)
        return {str(index): DISTILLATION.places(one, base) for index, one in enumerate(each)}

    def moved(self, tree: Tree, file: Path) -> str | None:
        """How to name in ``file`` itself the place where the data of a task are now."""
        gone = next((task["name"] for task in tree["tasks"] if DISTILLATION.moved(task["set"], file)), None)
        return None if gone is None else f"write its new place into {file}, for task {gone!r}, and resume again"

    def write_report(self, folder: Path) -> Path:
        """Write ``report.html`` and return its path."""
        from lra.benchmarks.tasks.task_report import write_task_report

        return write_task_report(folder)


TASKS_IN_TURN = Tasks()


def _identity(config: Chain, parts: Sequence[Identity]) -> Identity:
    return {"settings": config.settings, "tasks": dict(zip(config.names, parts, strict=True))}


class TaskStream(ClosedLoop[RunConfig]):
    """The tasks of a chain; each is configured when its turn comes, from what the one before left.

    Attributes:
        left: folder of the last finished task's run.
    """

    def __init__(self, config: Chain):
        super().__init__(len(config.runs))
        self.config = config
        self.left: Path | None = None

    def open(self) -> RunConfig:
        """The next task.

        Raises:
            UsageError: if the one before left nothing of what is to be carried.
        """
        return self.config.at(self.position, self.left)


class InTurn:
    """A chain that is being done.

    Args:
        config: with the tasks.
        folder: of the chain; those of its tasks are beside it.
        quiet: no progress on stderr.
    """

    def __init__(self, config: Chain, folder: RunFolder, quiet: bool):
        self.config, self.folder, self.quiet = config, folder, quiet

    def open(self, begin: Callable[[], None]) -> None:
        """Start the folder; records of finished tasks are written again as these are found."""
        from lra.benchmarks.runs.machine import environment

        begin()
        self.metrics = MetricsFile(self.folder.path / "metrics.jsonl", 0)
        self.folder.write_config(self.config.tree())
        self.folder.write_json("env.json", environment() | {"processes": 1})
        self.folder.save({"begun": True})

    def complete(self) -> None:
        """Do the tasks in order, and write the result.

        Raises:
            LraError: if a task fails, or is stopped: what is finished is kept.
        """
        config, out = self.config, self.folder.path.absolute().parents[2]
        stream, steps = TaskStream(config), 0
        for task in stream:
            name = config.names[stream.position]
            heading = f"task {stream.position + 1}/{stream.length} {name!r}, {config.place}"
            try:
                done = run(task, out, quiet=self.quiet, heading=heading, part_of=self.folder.resumed)
            except LraError as error:
                self._worded(error, name)
                raise
            stream.left = done.path
            steps += task.student_steps
            self.metrics.append(
                {
                    "task": name,
                    "folder": str(done.path.relative_to(out)),
                    "student_step": steps,
                    "accuracy": pick(done.result, "accuracy", "final"),
                    "agreement": pick(done.result, "agreement"),
                }
            )
        self.folder.write_json("result.json", self._result())

    def _worded(self, error: LraError, name: str) -> None:
        if isinstance(error, Resumable):
            error.args = (f"task {name!r} {error}",)
        else:
            kept = f"what is finished is kept, continue with lra-bench resume {self.folder.resumed}"
            error.args = (f"task {name!r} failed: {error}; {kept}",)

    def _result(self) -> dict[str, Any]:
        from lra.benchmarks.runs.machine import environment

        return {
            "schema": SCHEMA,
            "status": "finished",
            "kind": TASKS,
            "seed": self.config.seed,
            "config": self.config.tree(),
            **summary(tasks_of(self.folder.path)),
            "config_hash": self.folder.config_hash,
            "environment": environment(),
        }


def trials(config: Chain, out: Path) -> Iterator[Trial]:
    """The first steps of each task in turn, starting from what those of the task before left.

    Raises:
        LraError: for whatever a task itself would refuse.
    """
    from lra.benchmarks.runs.trial import trial

    with tempfile.TemporaryDirectory(prefix="lra-") as scratch:
        left = None
        for index, name in enumerate(config.names):
            task, leave = config.at(index, left), Path(scratch) / str(index)
            leave.mkdir()
            with concerning(f"task {name!r}"):
                found = trial(task, out, leave=leave)
            yield found
            left = leave
