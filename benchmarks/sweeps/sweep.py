"""Many runs from a grid. The unit is a run folder: finished ones are skipped, half-done ones go on.

``sweep.json`` in the sweep's folder says which runs belong to it and what became of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

from lra.benchmarks.errors import LraError, Resumable
from lra.benchmarks.files import held, sha256, write_json
from lra.benchmarks.interruption import Interrupted, interrupts
from lra.benchmarks.runs.kind import Configuration, kind_of
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.runs.runner import finished
from lra.benchmarks.sweeps.engines import Engine, Job
from lra.benchmarks.sweeps.grid import Planned

Status = Literal["waiting", "finished before", "done", "failed", "stopped"]
RECORD = "sweep.json"


@dataclass(frozen=True)
class Entry:
    """A run of a sweep.

    Attributes:
        label: where it stands on the grid's axes.
        config: resolved.
        folder: its run folder, ``None`` without a teacher.
        status: what became of it.
        reason: of a failure.
    """

    label: str
    config: Configuration
    folder: RunFolder | None
    status: Status
    reason: str = ""


class View(Protocol):
    """Shows how a sweep is getting on."""

    def show(self, entries: Sequence[Entry], running: Sequence[int]) -> None:
        """The state of all runs, and the indices of those in progress."""

    def ended(self, entry: Entry) -> None:
        """A run ended."""


def sweep(planned: Sequence[Planned], grid: Mapping[str, Any], out: Path, engine: Engine, view: View) -> list[Entry]:
    """Do the runs of a grid that are not finished yet; one that fails does not stop the others.

    Args:
        planned: those runs.
        grid: that they are planned from, for the record; see `lra.benchmarks.sweeps.grid`.
        out: folder of the sweep, parent of its run folders.
        engine: where to run.
        view: told of the progress.

    Raises:
        LraError: if another sweep works in ``out``.
        Stopped: after Ctrl-C or SIGTERM, when all runs are saved.
    """
    with held(out / ".sweep.lock", f"another sweep works in {out}: wait for it, stop it, or choose another with --out"):
        entries = located(planned, out)
        try:
            _do(entries, grid, out, engine, view)
        finally:
            engine.close()
            _write(entries, grid, out)
    return entries


def located(planned: Sequence[Planned], out: Path, train: bool = True) -> list[Entry]:
    """The folder of each run, for which every distinct teacher is loaded, or trained, once.

    Args:
        planned: the runs.
        out: parent of run folders.
        train: False leaves runs whose teacher is not there yet without a folder.
    """
    made: dict[str, Any] = {}
    entries = []
    for run, done in zip(planned, finished_before(planned, out), strict=True):
        folder, status, reason = done, "finished before" if done else "waiting", ""
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
    """The folders of runs that are finished, found without torch; ``None`` where that is not known yet."""
    digest = cache(sha256)
    found: list[RunFolder | None] = []
    for run in planned:
        try:
            found.append(finished(run.config, out, digest=digest))
        except LraError:  # Which is for the run to say, when it is its turn.
            found.append(None)
    return found


def _do(entries: list[Entry], grid: Mapping[str, Any], out: Path, engine: Engine, view: View) -> None:
    waiting = [(i, e, e.folder) for i, e in enumerate(entries) if e.status == "waiting"]
    jobs = [
        Job(entry.config.tree(), str(out.absolute()), str(folder.path.absolute()), entry.config.threads)
        for _, entry, folder in waiting
        if folder is not None
    ]
    _write(entries, grid, out)
    for entry in entries:
        if entry.status != "waiting":
            view.ended(entry)
    with interrupts(engine.stop) as caught:
        for outcome in engine.outcomes(jobs):
            if outcome is not None:
                index = waiting[outcome.index][0]
                entries[index] = replace(entries[index], status=outcome.status, reason=outcome.reason)
                view.ended(entries[index])
                _write(entries, grid, out)
            view.show(entries, [waiting[i][0] for i in engine.running()])
        view.show(entries, [])
    if caught:
        raise Interrupted(caught[0], "the same command goes on from here")


def _write(entries: Sequence[Entry], grid: Mapping[str, Any], out: Path) -> None:
    runs = [
        {
            "label": entry.label,
            "folder": str(entry.folder.path.relative_to(out)) if entry.folder else "",
            "status": entry.status,
            "reason": entry.reason,
        }
        for entry in entries
    ]
    write_json(out / RECORD, {"schema": 1, "grid": dict(grid), "runs": runs})
