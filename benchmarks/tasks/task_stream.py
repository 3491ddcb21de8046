"""Tasks one after another: the stream of them, doing them, and what came of them, read back from their folders.

The stream is the same closed loop as that of experiences: a task is opened with what the one before left. Each task
is an ordinary run in its own folder, so finished ones are not repeated and a stopped one goes on.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from lra import __version__
from lra.benchmarks.errors import LraError, MissingInput, Resumable, UsageError
from lra.benchmarks.files import held, write_json
from lra.benchmarks.records import GENERATOR, REPLAY, Record, Run, inner, known, number, numbers, pick, read_run, table
from lra.benchmarks.runs.progress import journal
from lra.benchmarks.runs.runner import run
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.tasks.task_file import Chain, TaskPlan
from lra.closed_loop import ClosedLoop

RECORD = "tasks.json"
log = logging.getLogger("lra")
Status = Literal["waiting", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Task:
    """A task that is open: a run to be done."""

    index: int
    name: str
    config: RunConfig


class TaskStream(ClosedLoop[Task]):
    """The tasks of a chain; each is configured when it is its turn, from what the last one left.

    Attributes:
        left: folder of the last finished task's run.
    """

    def __init__(self, plan: TaskPlan, chain: Chain):
        super().__init__(len(plan.cells))
        self.plan, self.chain = plan, chain
        self.left: Path | None = None

    def open(self) -> Task:
        """The next task.

        Raises:
            UsageError: if the last one left nothing of what is to be carried.
        """
        index = self.position
        return Task(index, self.plan.names[index], self.plan.config(index, self.chain, self._carried()))

    def _carried(self) -> Mapping[str, Any]:
        carry = self.plan.carry
        settings: dict[str, Any] = {"carry.keep_replay": True} if "replay" in carry else {}
        if self.left is None:
            return settings
        if self.chain.reuse != "anew":
            settings["synthesis.reuse"] = self.chain.reuse
        if self.chain.reuse != "anew" or "generator" in carry:
            settings["carry.generator"] = self._found(GENERATOR)
        if "replay" in carry:
            settings["carry.replay"] = self._found(REPLAY)
        return settings

    def _found(self, name: str) -> str:
        assert self.left is not None
        file = (self.left / name).absolute()
        if not file.is_file():
            raise UsageError(
                f"task {self.plan.names[self.position - 1]!r} left no {name}: its method or replay has none"
            )
        return str(file)


@dataclass
class Entry:
    """A task of a chain: what became of it."""

    name: str
    status: Status = "waiting"
    folder: str = ""
    reason: str = ""


def perform(plan: TaskPlan, out: Path, quiet: bool = False) -> list[list[Entry]]:
    """Do the tasks of every chain in order; one that fails ends its chain and leaves what is finished.

    Args:
        plan: of a file.
        out: parent of all run folders; chains share those of tasks that start alike.
        quiet: no progress on stderr.

    Raises:
        LraError: if a task failed, once all chains are through; or if another process works in ``out``.
        Resumable: after Ctrl-C or SIGTERM, when the run in progress is saved.
    """
    entries = [[Entry(name) for name in plan.names] for _ in plan.chains]
    with held(out / ".tasks.lock", f"other tasks are done in {out}: wait for them, or choose another with --out"):
        _write(plan, entries, out)
        with journal() as kept, kept.into(out / "log.txt"):
            for chain, own in zip(plan.chains, entries, strict=True):
                _do(TaskStream(plan, chain), own, out, quiet, lambda: _write(plan, entries, out))
    failed = [(c, e) for c, own in zip(plan.chains, entries, strict=True) for e in own if e.status == "failed"]
    if failed:
        chain, entry = failed[0]
        more = f" ({len(failed) - 1} more in {out / RECORD})" if len(failed) > 1 else ""
        raise LraError(
            f"task {entry.name!r} (reuse {chain.reuse}, seed {chain.seed}) failed: {entry.reason}{more}; "
            f"what is finished is kept, go on with lra-bench resume {out}"
        )
    return entries


def _do(stream: TaskStream, entries: Sequence[Entry], out: Path, quiet: bool, save: Callable[[], None]) -> None:
    """One chain; ``save`` is called whenever an entry has changed."""
    try:
        for task in stream:
            chain = f"reuse {stream.chain.reuse}, seed {stream.chain.seed}"
            heading = f"task {task.index + 1}/{stream.length} {task.name!r}, {chain}"
            folder = run(task.config, out, quiet=quiet, heading=heading)
            stream.left = folder.path
            entry = entries[task.index]
            entry.status, entry.folder = "done", str(folder.path.relative_to(out))
            save()
    except LraError as error:
        entry = entries[stream.position]
        entry.status, entry.reason = ("stopped" if isinstance(error, Resumable) else "failed"), str(error)
        log.info("task %r %s: %s", entry.name, entry.status, entry.reason)
        save()
        if isinstance(error, Resumable):
            raise


def _write(plan: TaskPlan, entries: Sequence[Sequence[Entry]], out: Path) -> None:
    chains = [
        {"reuse": chain.reuse, "seed": chain.seed, "tasks": [vars(entry) for entry in own]}
        for chain, own in zip(plan.chains, entries, strict=True)
    ]
    known = {"schema": 1, "lra": __version__, "file": plan.tree, "base": str(plan.base), "code": dict(plan.code or {})}
    write_json(out / RECORD, known | {"chains": chains})


SHARE = 0.9
"""Share of the final agreement at which a task counts as learnt."""
PART = 100
"""Inner steps of synthesis that count as early, or as late."""


@dataclass(frozen=True)
class TaskRun:
    """A finished task of a chain.

    Attributes:
        index: its place in the chain, from 0.
        name: as in the file.
        reuse, seed: of the chain.
        run: its run folder.
    """

    index: int
    name: str
    reuse: str
    seed: int
    run: Run

    @property
    def accuracy(self) -> float | None:
        """Final test accuracy in percent."""
        return number(pick(self.run.result, "accuracy", "final"))

    @property
    def agreement(self) -> float | None:
        """Final agreement with the teacher on the test set in percent."""
        return number(self.run.result.get("agreement"))

    @property
    def student_steps(self) -> float | None:
        """Student steps until the agreement was first at `SHARE` of the final one."""
        if self.agreement is None:
            return None
        curve = zip(self.run.column("student_step"), self.run.column("agreement"), strict=True)
        return next((step for step, value in curve if value is not None and value >= SHARE * self.agreement), None)

    @property
    def seconds(self) -> float | None:
        """Seconds until then, the synthesis before the first step included.

        Raises:
            UsageError: if the file of times is damaged.
        """
        file = self.run.folder / "times.json"
        try:
            rows = table(json.loads(file.read_text())) if file.is_file() else []
        except (ValueError, OSError):
            raise UsageError(f"{file} is damaged: remove it") from None
        return next((row[1] for row in rows if row[0] == self.student_steps), None)

    @property
    def generator_loss(self) -> list[float]:
        """The generator's loss at every inner step of synthesis, in order."""
        return [loss for row in self.run.rows for loss in known(numbers(row.get("generator_loss")))]

    @property
    def early_loss(self) -> float | None:
        """Mean of the first `PART` of these."""
        return fmean(self.generator_loss[:PART]) if self.generator_loss else None

    @property
    def late_loss(self) -> float | None:
        """Mean of the last `PART` of these."""
        return fmean(self.generator_loss[-PART:]) if self.generator_loss else None


def read_record(folder: Path) -> Record:
    """What `lra.benchmarks.tasks.task_stream.perform` wrote down.

    Raises:
        MissingInput: if there is none.
        UsageError: if it is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        raise MissingInput(f"no {RECORD} in {folder}: make one with lra-bench tasks FILE --out {folder}")
    try:
        record = json.loads(file.read_text())
        if (
            isinstance(record["file"], dict)
            and isinstance(record.get("code", {}), dict)
            and all(map(_sound, record["chains"]))
        ):
            return dict(record)
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        pass
    raise UsageError(f"{file} is damaged: do the tasks again to write it again")


def _sound(chain: Record) -> bool:
    """Whether a chain's record has all that is read of it."""
    named = isinstance(chain["reuse"], str) and isinstance(chain["seed"], int)
    return named and all(isinstance(t["name"] + t["status"], str) and inner(t["folder"]) for t in chain["tasks"])


def finished(folder: Path) -> list[TaskRun]:
    """The finished tasks of all chains in ``folder``.

    Raises:
        MissingInput: if there is none.
        UsageError: if a file is damaged.
    """
    runs = [
        TaskRun(index, task["name"], chain["reuse"], chain["seed"], read_run(folder / task["folder"]))
        for chain in read_record(folder)["chains"]
        for index, task in enumerate(chain["tasks"])
        if task["status"] == "done"
    ]
    if not runs:
        raise MissingInput(f"no task in {folder} is finished: go on with lra-bench resume {folder}")
    return runs


def modes(runs: Iterable[TaskRun]) -> list[str]:
    """The reuse modes there are, in the order of the file."""
    return list(dict.fromkeys(run.reuse for run in runs))


def names(runs: Iterable[TaskRun]) -> list[str]:
    """The tasks there are, in order."""
    return list(dict.fromkeys(run.name for run in sorted(runs, key=lambda run: run.index)))


def of(runs: Sequence[TaskRun], name: str, reuse: str) -> dict[int, TaskRun]:
    """The runs of a task in a mode, by seed."""
    return {run.seed: run for run in runs if (run.name, run.reuse) == (name, reuse)}


def apart(runs: Sequence[TaskRun], name: str) -> dict[str, dict[int, TaskRun]]:
    """The runs of a task by mode and seed; modes that share their runs, as in the first task, share an entry."""
    folders: dict[tuple[Path, ...], list[str]] = {}
    for mode in modes(runs):
        found = of(runs, name, mode)
        if found:
            folders.setdefault(tuple(run.run.folder for run in found.values()), []).append(mode)
    return {", ".join(same): of(runs, name, same[0]) for same in folders.values()}
