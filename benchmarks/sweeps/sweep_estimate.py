"""What a sweep would cost: finished runs of the same configuration, or else a few timed experiences."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lra.benchmarks.errors import LraError
from lra.benchmarks.progress import clock
from lra.benchmarks.runs.kind import Configuration, kind_of
from lra.benchmarks.sweeps.sweep import Entry


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        seconds: of its own, ``None`` if it cannot be told.
        basis: where that is from, or why it cannot be told.
        teacher: seconds to train its teacher, 0 if that is done.
        memory: MB that it takes, or any that was timed before it; 0 if nothing was timed.
    """

    seconds: float | None
    basis: str
    teacher: float = 0.0
    memory: float = 0.0


def estimates(entries: Sequence[Entry], out: Path) -> list[Estimate]:
    """The cost of each run in the folder ``out``; configurations that differ in the seed alone are timed once."""
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
        found = kind_of(config).trial(config, out)
    except LraError as error:
        return Estimate(None, str(error))
    return Estimate(found.seconds, found.basis, found.teacher, found.peak_memory_mb)


def record(entries: Sequence[Entry], out: Path) -> list[dict[str, Any]]:
    """Which runs there are, which are done, and what the rest would take, as plain data."""
    return [
        {"label": entry.label, "status": _state(entry), **asdict(cost)}
        for entry, cost in zip(entries, estimates(entries, out), strict=True)
    ]


def dry_run(entries: Sequence[Entry], workers: int, out: Path) -> Iterator[str]:
    """The estimate as lines to be read."""
    runs = record(entries, out)
    rows = [(run["status"], run["label"], _cost(run)) for run in runs]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for state, label, cost in rows:
        yield f"{state:{widths[0]}}  {label:{widths[1]}}  {cost}".rstrip()
    todo = [run["seconds"] for run, entry in zip(runs, entries, strict=True) if entry.status == "waiting"]
    total, unknown = sum(seconds or 0 for seconds in todo), todo.count(None)
    yield (
        f"{len(entries)} runs, {len(todo)} to do: {clock(total)} of work, "
        f"about {clock(total / workers)} on {workers} workers"
    )
    if unknown:
        yield f"{unknown} of them could not be timed"
    if memory := max((run["memory"] for run in runs), default=0.0):
        yield f"peak memory: {memory:,.0f} MB of each at most"
    missing = {
        kind_of(e.config).shared(e.config): run["teacher"]
        for run, e in zip(runs, entries, strict=True)
        if e.folder is None and e.status == "waiting"
    }
    if missing:
        training = clock(sum(missing.values()))
        yield f"{len(missing)} teacher{'s' if len(missing) > 1 else ''} would be trained first: {training} of work"


def _state(entry: Entry) -> str:
    if entry.status == "waiting" and entry.folder and entry.folder.checkpoint.is_file():
        return "half done"
    return {"finished before": "finished", "waiting": "to do"}.get(entry.status, entry.status)


def _cost(run: dict[str, Any]) -> str:
    return run["basis"] if run["seconds"] is None else f"{clock(run['seconds'])} ({run['basis']})"
