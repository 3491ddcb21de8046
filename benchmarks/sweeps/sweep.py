"""Many runs from a grid, and what they would cost.

The unit is a run folder: finished runs are skipped, half-done ones resumed. The cost of a run is estimated from
finished runs of the same configuration or else from a few timed experiences; what comes before and after it is timed by
doing it once: a worker's start, the run's own start-up, its report.

``sweep.json`` in the sweep's folder says which runs belong to it and what became of each.
"""

import heapq
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Protocol

import yaml

from lra.benchmarks.errors import Interrupted, LraError, Resumable, interrupts
from lra.benchmarks.files import held, sha256, write_json
from lra.benchmarks.progress import clock
from lra.benchmarks.runs.kind import Configuration, Trial, kind_of
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.runs.runner import finished
from lra.benchmarks.setup.config import EVALUATIONS
from lra.benchmarks.sweeps.engines import Engine, Job
from lra.benchmarks.sweeps.grid import Planned
from lra.benchmarks.text import counted
from lra.metrics.quantities import FOLLOWED, quantities

Status = Literal["waiting", "finished before", "done", "failed", "stopped"]
RECORD = "sweep.json"


@dataclass(frozen=True)
class Entry:
    """A run of a sweep.

    Attributes:
        label: where it stands on the grid's axes.
        config: resolved.
        folder: its run folder; ``None`` while its teacher is missing, or if it failed for lack of one.
        status: what became of it.
        reason: of a failure.
    """

    label: str
    config: Configuration
    folder: RunFolder | None
    status: Status
    reason: str = ""


class SweepDisplay(Protocol):
    """Shows how a sweep is getting on."""

    def show(self, entries: Sequence[Entry], running: Sequence[int]) -> None:
        """The state of all runs, and the indices of those in progress."""

    def ended(self, entry: Entry) -> None:
        """A run ended."""


def sweep(
    planned: Sequence[Planned],
    grid: Mapping[str, Any],
    out: Path,
    engine: Engine,
    display: SweepDisplay,
    file: Path | None = None,
) -> list[Entry]:
    """Do the runs of a grid that are not finished yet; one that fails does not stop the others.

    Args:
        planned: the runs of the grid.
        grid: the grid itself, for the record; see `lra.benchmarks.sweeps.grid`.
        out: folder of the sweep, parent of its run folders.
        engine: does the runs.
        display: shows the progress.
        file: where the grid is from, for the record.

    Raises:
        LraError: if another sweep works in ``out``.
        Interrupted: after Ctrl-C or SIGTERM, when all runs are saved.
    """
    with held(out / ".sweep.lock", f"another sweep works in {out}: wait for it, stop it, or choose another with --out"):
        entries = located(planned, out)
        try:
            _do(entries, grid, out, engine, display, file)
        finally:
            engine.close()
            _write(entries, grid, out, file)
    return entries


def located(planned: Sequence[Planned], out: Path, train: bool = True) -> list[Entry]:
    """An entry for each run, with its folder; for that, every distinct teacher is loaded, or trained, once.

    Args:
        planned: the runs.
        out: parent of run folders.
        train: ``False`` leaves runs whose teacher is not trained yet without a folder.
    """
    made: dict[str, Any] = {}
    entries = []
    for run, done in zip(planned, finished_before(planned, out), strict=True):
        folder, reason = done, ""
        status: Status = "finished before" if done else "waiting"
        if done is None:
            try:
                named = kind_of(run.config).named(run.config, made, train)
            except Resumable:
                raise
            except LraError as error:
                named, status, reason = None, "failed", str(error)
            if named is not None:
                folder = RunFolder.of(*named, run.config.seed, out)
                status = "waiting" if folder.result is None else "finished before"
        entries.append(Entry(run.label, run.config, folder, status, reason))
    return entries


def finished_before(planned: Sequence[Planned], out: Path) -> list[RunFolder | None]:
    """The folder of each run that is finished, found without torch; ``None`` for those not known to be."""
    digest = cache(sha256)
    found: list[RunFolder | None] = []
    for run in planned:
        try:
            found.append(finished(run.config, out, digest=digest))
        except LraError:  # The run says so itself when its turn comes.
            found.append(None)
    return found


def _do(
    entries: list[Entry], grid: Mapping[str, Any], out: Path, engine: Engine, display: SweepDisplay, file: Path | None
) -> None:
    waiting = [(i, e, e.folder) for i, e in enumerate(entries) if e.status == "waiting"]
    jobs = [
        Job(e.config.tree(), str(out.absolute()), str(folder.path.absolute()), e.config.threads, folder.identity)
        for _, e, folder in waiting
        if folder is not None and folder.identity is not None
    ]
    _write(entries, grid, out, file)
    for entry in entries:
        if entry.status != "waiting":
            display.ended(entry)
    with interrupts(engine.stop) as caught:
        for outcome in engine.outcomes(jobs):
            if outcome is not None:
                index = waiting[outcome.index][0]
                entries[index] = replace(entries[index], status=outcome.status, reason=outcome.reason)
                display.ended(entries[index])
                _write(entries, grid, out, file)
            display.show(entries, [waiting[i][0] for i in engine.running()])
        display.show(entries, [])
    if caught:
        raise Interrupted(caught[0], "repeat the command to continue")


def _write(entries: Sequence[Entry], grid: Mapping[str, Any], out: Path, file: Path | None) -> None:
    runs = [
        {
            "label": entry.label,
            "folder": str(entry.folder.path.relative_to(out)) if entry.folder else "",
            "status": entry.status,
            "reason": entry.reason,
        }
        for entry in entries
    ]
    named = {} if file is None else {"file": file.name if file.is_absolute() else str(file)}
    write_json(out / RECORD, {"schema": 1, **named, "grid": dict(grid), "runs": runs})


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        seconds: of its own training and evaluation; ``None`` if unknown.
        basis: what that is based on, or why it is unknown.
        teacher: seconds to train its teacher, 0 if that is done.
        memory: peak MB of it and of what was timed before it; 0 if it was not timed.
        beside: seconds before its first step and after its last, as far as known.
    """

    seconds: float | None
    basis: str
    teacher: float = 0.0
    memory: float = 0.0
    beside: float = 0.0

    @classmethod
    def of(cls, trial: Trial) -> "Estimate":
        """The estimate from the first steps of a run."""
        return cls(trial.seconds, trial.basis, trial.teacher, trial.peak_memory_mb, trial.start_up)


def estimates(entries: Sequence[Entry], out: Path) -> list[Estimate]:
    """The cost of each run in the folder ``out``; configurations that differ only in the seed are timed once."""
    known: dict[str, Estimate] = {}
    for entry in entries:
        key = entry.config.provisional
        if key not in known:
            twins = [e for e in entries if e.config.provisional == key]
            known[key] = _finished(twins) or _timed(entry.config, out)
    return [known[entry.config.provisional] for entry in entries]


def _finished(entries: Sequence[Entry]) -> Estimate | None:
    results = [entry.folder.result for entry in entries if entry.folder]
    seconds = [result["cost"]["seconds"] for result in results if result]
    return Estimate(fmean(seconds), "from finished runs") if seconds else None


def _timed(config: Configuration, out: Path) -> Estimate:
    try:
        return Estimate.of(kind_of(config).trial(config, out))
    except LraError as error:
        return Estimate(None, str(error))


def record(entries: Sequence[Entry], out: Path) -> list[dict[str, Any]]:
    """The state of each run and what it would take, as plain data."""
    costs = estimates(entries, out)
    reports = {kind_of(entry.config): entry.config for entry in entries if _state(entry) in (TO_DO, HALF_DONE)}
    after = {kind: report_seconds(config) for kind, config in reports.items()}
    return [
        {"label": entry.label, "status": _state(entry), **asdict(cost)}
        | {"beside": cost.beside + after.get(kind_of(entry.config), 0.0)}
        for entry, cost in zip(entries, costs, strict=True)
    ]


def dry_run(entries: Sequence[Entry], workers: int, out: Path) -> Iterator[str]:
    """The estimate as lines of text."""
    runs = record(entries, out)
    missing = {
        kind_of(e.config).shared(e.config): run["teacher"]
        for run, e in zip(runs, entries, strict=True)
        if e.folder is None and e.status == "waiting"
    }
    return told(runs, workers, missing, worker_seconds() if _todo(runs) else 0.0)


def told(
    runs: Sequence[Mapping[str, Any]], workers: int, missing: Mapping[str, float], start: float = 0.0
) -> Iterator[str]:
    """A `record` as lines of text.

    Args:
        runs: the record.
        workers: runs at a time.
        missing: teachers to be trained first, one after another, and the seconds of each.
        start: seconds that a process takes to start, this one and every worker alike.
    """
    rows = [(run["status"], run["label"], _cost(run)) for run in runs]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for state, label, cost in rows:
        yield f"{state:{widths[0]}}  {label:{widths[1]}}  {cost}".rstrip()
    todo = _todo(runs)
    work, beside = sum(run["seconds"] or 0.0 for run in todo), sum(run["beside"] for run in todo)
    lessons = sum(missing.values())
    whole = lessons + (2 * start + makespan([(run["seconds"] or 0.0) + run["beside"] for run in todo], workers))
    yield (
        f"{counted(len(runs), 'run')}, {len(todo)} to do: about {clock(whole if todo else 0.0)} "
        f"on {counted(workers, 'worker')}"
    )
    if todo:
        yield (
            f"the workers share {clock(work)} training and evaluation, {clock(beside)} start-up and reports; "
            f"every process takes {clock(start)} to start"
        )
    if unknown := [run["seconds"] for run in todo].count(None):
        yield f"{unknown} of the runs to do could not be timed"
    if memory := max((run["memory"] for run in runs), default=0.0):
        yield f"peak memory: at most {memory:,.0f} MB for each run"
    if missing:
        yield f"{counted(len(missing), 'teacher')} would be trained first: {clock(lessons)}, included above"


def _todo(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [run for run in runs if run["status"] in (TO_DO, HALF_DONE)]


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Seconds until all jobs are done, each started in turn by the first worker that is free."""
    free = [0.0] * workers
    for job in seconds:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def worker_seconds() -> float:
    """Seconds until a new process has imported what a run needs."""
    began = time.perf_counter()
    needs = "import lra.benchmarks.runs.training, lra.benchmarks.reports.report"
    subprocess.run([sys.executable, "-c", needs], check=False, capture_output=True)
    return time.perf_counter() - began


def report_seconds(config: Configuration) -> float:
    """Seconds that the report of a run takes, from one of made-up evaluations; 0 if that fails."""
    import lra.benchmarks.reports.report  # noqa: F401

    steps = [config.student_steps * (i + 1) // EVALUATIONS for i in range(EVALUATIONS)]
    curve = [{"evaluation": i, "student_step": step} for i, step in enumerate(steps)]
    rows = [row | dict.fromkeys((q.record for q in quantities(*FOLLOWED)), 50.0 + i) for i, row in enumerate(curve)]
    with tempfile.TemporaryDirectory(prefix="lra-") as scratch, suppress(LraError):
        folder = Path(scratch)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "config.yaml").write_text(yaml.safe_dump(config.tree()))
        began = time.perf_counter()
        kind_of(config).write_report(folder)
        return time.perf_counter() - began
    return 0.0


FINISHED, HALF_DONE, TO_DO = "finished", "half done", "to do"
"""The states of runs in an estimate."""


def _state(entry: Entry) -> str:
    if entry.status == "waiting" and entry.folder and entry.folder.checkpoint.is_file():
        return HALF_DONE
    return {"finished before": FINISHED, "waiting": TO_DO}.get(entry.status, entry.status)


def _cost(run: Mapping[str, Any]) -> str:
    return run["basis"] if run["seconds"] is None else f"{clock(run['seconds'])} ({run['basis']})"
