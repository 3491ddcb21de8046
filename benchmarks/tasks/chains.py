"""The chains of a file of tasks, done one after another, and the results of their tasks, read back from the folders."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from lra import __version__
from lra.benchmarks.comparison.groups import TASK_RECORD, run_folders, task_record
from lra.benchmarks.errors import LraError, MissingInput, Resumable, UsageError
from lra.benchmarks.files import held, write_json
from lra.benchmarks.records import TASKS, Record, Run, known, mean, number, numbers, parts_of, pick, read_run, table
from lra.benchmarks.runs.distillation import DISTILLATION
from lra.benchmarks.runs.kind import kind_of
from lra.benchmarks.runs.progress import journal
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.runs.runner import run
from lra.benchmarks.sweeps.grid import Planned
from lra.benchmarks.sweeps.sweep import FINISHED, TO_DO, Entry, Estimate, located
from lra.benchmarks.tasks.task_file import Chain, TaskPlan

SHARE = 0.9
"""Share of the final agreement at which a task counts as learnt."""
PART = 100
"""Number of inner steps of synthesis that count as early, and as late."""


def perform(plan: TaskPlan, out: Path) -> None:
    """Do every chain of a file, one after another; if one fails, the others are done and finished tasks are kept.

    Args:
        plan: what the file asks for.
        out: parent of all run folders.

    Raises:
        LraError: if a task failed, after all chains were tried; or if another process does tasks in ``out``.
        Resumable: after Ctrl-C or SIGTERM, when the run in progress is saved.
    """
    with (
        held(out / ".tasks.lock", f"another process does tasks in {out}: wait for it, or choose another with --out"),
        journal() as kept,
        kept.into(out / "log.txt"),
    ):
        entries = located([Planned(chain.place, chain) for chain in plan.chains], out)
        _write(plan, entries, out)
        for index, entry in enumerate(entries):
            if entry.status == "failed":
                continue
            try:
                run(entry.config, out, part_of=out)
                entries[index] = replace(entry, status="done")
            except Resumable as error:
                entries[index] = replace(entry, status="stopped", reason=str(error))
                raise
            except LraError as error:
                entries[index] = replace(entry, status="failed", reason=str(error))
            finally:
                _write(plan, entries, out)
    if failed := [entry for entry in entries if entry.status == "failed"]:
        more = f" ({len(failed) - 1} more in {out / TASK_RECORD})" if len(failed) > 1 else ""
        raise LraError(f"{failed[0].label}: {failed[0].reason}{more}")


def _write(plan: TaskPlan, entries: Sequence[Entry], out: Path) -> None:
    chains = [
        {
            "reuse": chain.reuse,
            "seed": chain.seed,
            "folder": str(entry.folder.path.relative_to(out)) if entry.folder else "",
            "tasks": _became(chain, entry),
        }
        for chain, entry in zip(plan.chains, entries, strict=True)
    ]
    told = {"schema": 1, "lra": __version__, "file": plan.tree, "base": str(plan.base), "code": plan.chains[0].code}
    write_json(out / TASK_RECORD, told | {"chains": chains})


def _became(chain: Chain, entry: Entry) -> list[Record]:
    """What became of each task: those that are done, the one that ended the chain, and the rest."""
    done = [] if entry.folder is None else list(_parts(entry.folder.path).values())
    ended: list[tuple[str, str]] = [(entry.status, entry.reason)] if entry.status in ("failed", "stopped") else []
    states = [("done", "")] * len(done) + ended + [("waiting", "")] * len(chain.names)
    folders = done + [""] * len(chain.names)
    return [
        {"name": name, "status": status, "folder": folder, "reason": reason}
        for name, (status, reason), folder in zip(chain.names, states, folders, strict=False)
    ]


def _parts(chain: Path) -> dict[str, str]:
    return parts_of(read_run(chain)) if (chain / "metrics.jsonl").is_file() else {}


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
        """Student steps until the agreement first reached `SHARE` of the final one."""
        if self.agreement is None:
            return None
        curve = zip(self.run.column("student_step"), self.run.column("agreement"), strict=True)
        return next((step for step, value in curve if value is not None and value >= SHARE * self.agreement), None)

    @property
    def seconds(self) -> float | None:
        """Seconds until then, including the synthesis before the first step.

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


LATER = ("accuracy", "agreement", "student_steps", "early_loss", "late_loss")
"""Averaged in a chain's result over all tasks but the first, into which nothing is carried."""


def summary(tasks: Sequence[TaskRun]) -> Record:
    """The result of a chain: means over its tasks, sums of what they cost."""
    costs = [cost for task in tasks if isinstance(cost := task.run.result.get("cost"), dict)]
    counted = dict.fromkeys(key for cost in costs for key in cost)
    total = {key: sum(known([number(cost.get(key)) for cost in costs])) for key in counted}
    peaks = known([number(cost.get("peak_memory_mb")) for cost in costs])
    return {
        "accuracy": {"final": mean([task.accuracy for task in tasks])},
        "agreement": mean([task.agreement for task in tasks]),
        "later": {name: mean([getattr(task, name) for task in tasks[1:]]) for name in LATER} if tasks[1:] else None,
        "cost": total | {"peak_memory_mb": max(peaks, default=None)},
    }


def estimated(plan: TaskPlan, out: Path) -> tuple[list[Record], dict[str, float]]:
    """What each task of each chain would take in the folder ``out``, and the seconds to train each missing teacher.

    Chains that differ only in the seed are timed once, each task starting from what the first steps of the one before
    left.
    """
    entries = located([Planned(chain.place, chain) for chain in plan.chains], out, train=False)
    timed: dict[str, list[Estimate]] = {}
    rows: list[Record] = []
    teachers: dict[str, float] = {}
    begun: set[tuple[str, int]] = set()
    for chain, entry in zip(plan.chains, entries, strict=True):
        done = [] if entry.folder is None else tasks_of(entry.folder.path)
        if len(done) < len(chain.runs) and chain.provisional not in timed:
            timed[chain.provisional] = _timed(chain, out)
        for index, (name, alone) in enumerate(zip(chain.names, chain.runs, strict=True)):
            first, cost = (alone.provisional, chain.seed), timed.get(chain.provisional, [])[index:]
            if index < len(done):
                seconds = number(pick(done[index].run.result, "cost", "seconds"))
                status, found = FINISHED, Estimate(seconds, "from finished runs")
            elif index == 0 and first in begun:
                status, found = TO_DO, Estimate(0.0, "the same run as above")
            else:
                status, found = TO_DO, cost[0]
            begun |= {first} if index == 0 else set()
            teachers |= {DISTILLATION.shared(alone): found.teacher} if found.teacher else {}
            rows.append({"label": f"{name}, {chain.place}", "status": status, **asdict(found)})
    return rows, teachers


def listed(plan: TaskPlan, out: Path) -> list[Record]:
    """Each task of each chain, and whether it is finished in the folder ``out``; nothing is timed."""
    rows: list[Record] = []
    for chain in plan.chains:
        done = 0
        with suppress(LraError):  # The run says so itself when its turn comes.
            identity = kind_of(chain).identity(chain)
            begun = [] if identity is None else out.glob(f"*/{RunFolder.place(identity, chain.seed)}")
            done = max((len(tasks_of(folder)) for folder in begun), default=0)
        states = [FINISHED] * done + [TO_DO] * (len(chain.names) - done)
        rows += [
            {"label": f"{name}, {chain.place}", "status": state}
            for name, state in zip(chain.names, states, strict=True)
        ]
    return rows


def _timed(chain: Chain, out: Path) -> list[Estimate]:
    from lra.benchmarks.tasks.kind import trials

    found: list[Estimate] = []
    try:
        found.extend(map(Estimate.of, trials(chain, out)))
    except LraError as error:
        found += [Estimate(None, str(error))] * (len(chain.runs) - len(found))
    return found


def tasks_of(chain: Path) -> list[TaskRun]:
    """The finished tasks of the chain in a run folder.

    Raises:
        UsageError: if a file is damaged.
    """
    parts, out = _parts(chain), chain.absolute().parents[2]
    config = read_run(chain).config if parts else {}
    reuse, seed = str(config.get("reuse")), int(number(config.get("seed")) or 0)
    return [
        TaskRun(index, name, reuse, seed, read_run(out / folder)) for index, (name, folder) in enumerate(parts.items())
    ]


def finished(folder: Path) -> list[TaskRun]:
    """The finished tasks of all chains in the ``folder`` of a chain, of a file of tasks, or of a sweep of chains.

    Raises:
        MissingInput: if there is none.
        UsageError: if a file is damaged.
    """
    if (folder / TASK_RECORD).is_file():
        chains = [folder / chain["folder"] for chain in task_record(folder)["chains"] if chain["folder"]]
    else:
        there = [place for place in run_folders([folder]) if (place / "metrics.jsonl").is_file()]
        chains = [place for place in there if read_run(place).kind == TASKS]
        if not chains:
            task_record(folder)
    runs = [task for chain in chains for task in tasks_of(chain)]
    if not runs:
        raise MissingInput(f"no task in {folder} is finished: continue with lra-bench resume {folder}")
    return runs


def modes(runs: Iterable[TaskRun]) -> list[str]:
    """The reuse modes of the runs, in order of appearance."""
    return list(dict.fromkeys(run.reuse for run in runs))


def names(runs: Iterable[TaskRun]) -> list[str]:
    """The names of the tasks, in their order."""
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
