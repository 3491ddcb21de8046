"""``lra-bench sweep``: every run of a grid, with the engine that was asked for."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lra.benchmarks.commands.options import PATH, DryRun, assigned, tried
from lra.benchmarks.errors import LraError, UsageError, concerning
from lra.benchmarks.progress import loading, tell

if TYPE_CHECKING:
    from lra.benchmarks.setup.config import Tree
    from lra.benchmarks.sweeps.engines import Engine
    from lra.benchmarks.sweeps.grid import Planned

THREADS = click.IntRange(1, 1024)


@click.command()
@click.argument("grid", type=PATH)
@click.option("--out", type=PATH, help="Folder of the sweep. [default: runs/NAME OF GRID]")
@click.option("--workers", type=click.IntRange(1), help="Runs at a time. [default: as many as fit; one on a GPU]")
@click.option("--per-gpu", type=click.IntRange(1), help="Runs at a time on each GPU of this machine.")
@click.option("--threads", type=THREADS, help="Torch threads of each run. [default: by the size of its networks]")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where to run.")
@click.option("--address", help="Ray cluster to use, such as auto. [default: start one on this machine]")
@click.option(
    "--gpus", type=click.FloatRange(0), default=0.0, help="GPUs of each run under ray; 0.25 puts four on one."
)
@assigned("Set any option of all runs, overriding the grid; a list is an axis.")
@click.option("--json", "as_json", is_flag=True, help="Print the sweep's record as one JSON object.")
@tried
def sweep(
    grid: Path,
    out: Path | None,
    workers: int | None,
    per_gpu: int | None,
    threads: int | None,
    engine: str,
    address: str | None,
    gpus: float,
    assignments: tuple[str, ...],
    as_json: bool,
    dry_run: DryRun | None,
) -> None:
    """Do all unfinished runs of a YAML grid.

    In the grid, lists are axes and scalars are fixed: method: [predfkd, dfq], seed: [0, 1, 2], steps: 400,
    set: {student.lr: [0.03, 0.1]}.
    """
    if engine == "local" and (address is not None or gpus):
        raise UsageError("--address and --gpus are for --engine ray")
    if per_gpu is not None and (engine == "ray" or workers is not None):
        raise UsageError("--per-gpu stands alone: leave --workers out; --engine ray has --gpus")
    if engine == "ray":
        from lra.benchmarks.sweeps.cluster import require_ray

        require_ray()
    place = out or Path("runs") / grid.stem
    tree, planned = _planned(grid, assignments)
    if dry_run == "untimed":
        click.echo(untimed(states(planned, place), as_json))
        return
    planned = settled_all(planned, place, threads)
    if engine == "local":
        warn(planned)
    cards = [] if per_gpu is None else cards_for(planned)
    number = len(cards) * per_gpu if per_gpu is not None else workers or at_a_time(planned)
    if dry_run:
        for line in estimated(planned, place, number, as_json):
            click.echo(line)
    else:
        where = _engine(engine, number, most(planned), address, gpus, cards)
        click.echo(done(tree, planned, place, where, as_json, grid))


def done(
    grid: Tree, planned: Sequence[Planned], out: Path, engine: Engine, as_json: bool = False, file: Path | None = None
) -> str:
    """Do the sweep; returns what is to be printed, or raises `LraError` if runs failed."""
    from lra.benchmarks.reports.sweep_report import write_sweep_report
    from lra.benchmarks.sweeps.sweep import RECORD
    from lra.benchmarks.sweeps.sweep import sweep as do
    from lra.benchmarks.sweeps.sweep_progress import SweepProgress

    entries = do(planned, grid, out, engine, SweepProgress(len(planned)), file)
    failed = [entry for entry in entries if entry.status == "failed"]
    for entry in failed:
        print(f"failed: {entry.label}: {entry.reason}", file=sys.stderr)
    if failed:
        raise LraError(f"{len(failed)} of {len(entries)} runs failed, as listed; the same command tries them again")
    page = write_sweep_report(out)
    return (out / RECORD).read_text().rstrip() if as_json else ending([entry.status for entry in entries], out, page)


def ending(statuses: Sequence[str], out: Path, page: Path) -> str:
    """What a sweep in the folder ``out`` says at its end: what became of its runs, and where they are reported."""
    what = ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())
    return f"runs        {len(statuses)}: {what}\ncompare     lra-bench compare {out}\nreport      {page}"


def estimated(planned: Sequence[Planned], out: Path, workers: int, as_json: bool) -> Iterator[str]:
    """Lines about the runs and what they would take; nothing is written."""
    from lra.benchmarks.sweeps.sweep import dry_run, located, record

    entries = located(planned, out, train=False)
    if as_json:
        yield json.dumps({"runs": record(entries, out), "workers": workers})
    else:
        yield from dry_run(entries, workers, out)


def states(planned: Sequence[Planned], out: Path) -> list[dict[str, str]]:
    """The runs and which are finished, told at once."""
    from lra.benchmarks.sweeps.sweep import FINISHED, TO_DO, finished_before

    return [
        {"label": run.label, "status": TO_DO if done is None else FINISHED}
        for run, done in zip(planned, finished_before(planned, out), strict=True)
    ]


def untimed(runs: Sequence[Mapping[str, str]], as_json: bool) -> str:
    """What a dry run without timing says of ``runs``: of each its label and status."""
    from lra.benchmarks.sweeps.sweep import TO_DO
    from lra.benchmarks.text import counted

    if as_json:
        return json.dumps({"runs": runs})
    lines = [f"{run['status']:8}  {run['label']}" for run in runs]
    return "\n".join([*lines, f"{counted(len(runs), 'run')}, {[run['status'] for run in runs].count(TO_DO)} to do"])


def _planned(file: Path, assignments: Sequence[str]) -> tuple[Tree, list[Planned]]:
    """The grid in a file, with what was set beside it, and its runs."""
    from lra.benchmarks.setup.resolution import read_options
    from lra.benchmarks.sweeps.grid import plan, with_settings

    grid = read_options(file, "grid")
    with concerning(f"grid {file}"):
        grid = with_settings(grid, assignments)
        return grid, plan(grid, file.parent)


def settled_all(planned: Sequence[Planned], out: Path, threads: int | None) -> list[Planned]:
    """The runs of a grid, with their threads where they are still to be done."""
    from lra.benchmarks.sweeps.sweep import finished_before

    done = finished_before(planned, out)
    with loading("torch") if None in done else nullcontext():
        return [run if there else settled(run, threads) for run, there in zip(planned, done, strict=True)]


def settled(run: Planned, threads: int | None) -> Planned:
    """A run with the threads that were asked for, or those that it would take by itself."""
    from lra.benchmarks.runs.kind import kind_of

    try:
        number = threads or kind_of(run.config).threads(run.config)
    except LraError:  # Which is for the run to say, when it is its turn.
        return run
    return replace(run, config=run.config.model_copy(update={"threads": number}))


def warn(planned: Sequence[Planned]) -> None:
    """Say on stderr what this machine does only slowly."""
    from lra.benchmarks.runs.machine import slow_precision
    from lra.benchmarks.setup.config import RunConfig

    configs = [run.config for run in planned if isinstance(run.config, RunConfig)]
    for note in dict.fromkeys(note for config in configs for note in slow_precision(config)):
        tell(note)


def most(planned: Sequence[Planned]) -> int:
    """The most threads that a run takes."""
    return max(run.config.threads or 1 for run in planned)


def at_a_time(planned: Sequence[Planned]) -> int:
    """How many runs this machine takes at a time."""
    from lra.benchmarks.runs.machine import processors

    if any(run.config.device != "cpu" for run in planned):
        return 1
    return max(1, processors() // most(planned))


def cards_for(planned: Sequence[Planned]) -> list[str]:
    """The GPUs of this machine, for runs that leave it to the sweep which one they take.

    Raises:
        UsageError: if there are none, or a run is to be on another device, or says which.
    """
    from lra.benchmarks.runs.machine import cards

    there = cards()
    if not there:
        raise UsageError("--per-gpu: torch sees no GPU on this machine; leave it out")
    for run in planned:
        if run.config.device != "cuda":
            raise UsageError(f"--per-gpu: {run.label} is on {run.config.device!r}: write device: cuda in the grid")
    return there


def _engine(
    name: str, workers: int, threads: int, address: str | None, gpus: float, cards: Sequence[str] = ()
) -> Engine:
    from lra.benchmarks.sweeps.cluster import RayEngine
    from lra.benchmarks.sweeps.engines import LocalEngine

    if name == "local":
        return LocalEngine(workers, cards)
    return RayEngine(workers, threads, address, gpus)
