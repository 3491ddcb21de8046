"""What came of tasks in sequence, read back from their folders."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.records import Record, Run, inner, known, number, numbers, pick, read_run, table
from lra.benchmarks.tasks.task_stream import RECORD

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
