"""``lra-bench sweep``: from a grid to runs, with the engine that was asked for."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from lra.benchmarks.errors import LraError, concerning
from lra.benchmarks.progress import loading
from lra.benchmarks.reports.sweep_report import write_sweep_report
from lra.benchmarks.runs.kind import kind_of
from lra.benchmarks.runs.machine import processors
from lra.benchmarks.setup.config import Tree
from lra.benchmarks.setup.resolution import read_options
from lra.benchmarks.sweeps.engines import Engine, LocalEngine
from lra.benchmarks.sweeps.grid import Planned, plan
from lra.benchmarks.sweeps.sweep import RECORD, Entry, finished_before, located, sweep
from lra.benchmarks.sweeps.sweep_progress import SweepProgress


def perform(
    file: Path,
    out: Path,
    engine: str,
    workers: int | None,
    threads: int | None,
    address: str | None,
    gpus: float,
    as_json: bool,
) -> str:
    """Do the sweep of the grid in a file; returns what is to be printed.

    Raises:
        LraError: as `lra.benchmarks.sweeps.sweep.sweep`, and if runs failed.
    """
    grid, planned = _planned(file, out, threads)
    number = workers or at_a_time(planned)
    does, progress = _engine(engine, number, most(planned), address, gpus), SweepProgress(len(planned))
    entries = sweep(planned, grid, out, does, progress)
    failed = [entry for entry in entries if entry.status == "failed"]
    for entry in failed:
        print(f"failed: {entry.label}: {entry.reason}", file=sys.stderr)
    if failed:
        raise LraError(f"{len(failed)} of {len(entries)} runs failed, as listed; the same command tries them again")
    page = write_sweep_report(out)
    return (out / RECORD).read_text().rstrip() if as_json else _ending(entries, out, page)


def _ending(entries: Sequence[Entry], out: Path, page: Path) -> str:
    counts = Counter(entry.status for entry in entries)
    what = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"runs        {len(entries)}: {what}\ncompare     lra-bench compare {out}\nreport      {page}"


def estimate(
    file: Path,
    out: Path,
    workers: int | None,
    threads: int | None,
    as_json: bool,
) -> Iterator[str]:
    """Lines about the runs of the grid in a file and what they would take; nothing is written."""
    from lra.benchmarks.sweeps.sweep import dry_run, record

    _, planned = _planned(file, out, threads)
    entries, number = located(planned, out, train=False), workers or at_a_time(planned)
    if as_json:
        yield json.dumps({"runs": record(entries, out), "workers": number})
    else:
        yield from dry_run(entries, number, out)


def _planned(file: Path, out: Path, threads: int | None) -> tuple[Tree, list[Planned]]:
    """The grid in a file, and its runs, with their threads where they are still to be done."""
    grid = read_options(file, "grid")
    with concerning(f"grid {file}"):
        planned = plan(grid, file.parent)
    done = finished_before(planned, out)
    with loading("torch") if None in done else nullcontext():
        return grid, [run if there else settled(run, threads) for run, there in zip(planned, done, strict=True)]


def settled(run: Planned, threads: int | None) -> Planned:
    """A run with the threads that were asked for, or those that it would take by itself."""
    try:
        number = threads or kind_of(run.config).threads(run.config)
    except LraError:  # Which is for the run to say, when it is its turn.
        return run
    return replace(run, config=run.config.model_copy(update={"threads": number}))


def most(planned: Sequence[Planned]) -> int:
    """The most threads that a run takes."""
    return max(run.config.threads or 1 for run in planned)


def at_a_time(planned: Sequence[Planned]) -> int:
    """How many runs this machine takes at a time."""
    if any(run.config.device != "cpu" for run in planned):
        return 1
    return max(1, processors() // most(planned))


def _engine(name: str, workers: int, threads: int, address: str | None, gpus: float) -> Engine:
    if name == "local":
        return LocalEngine(workers)
    from lra.benchmarks.sweeps.ray_engine import RayEngine

    return RayEngine(workers, threads, address, gpus)
