"""How long answers that need no training take: whole processes on one core, beside imports that they avoid.

    python -m lra.benchmarks.cost.startup [--repeats N] [--core N]

The commands take turns, so that other load on the machine affects all alike; a row is a median.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click

from lra.benchmarks.text import markdown_table

LRA_BENCH = (sys.executable, "-m", "lra.benchmarks")

SMALL = (
    *("--teacher", "mlp", "--student", "mlp", "--steps", "40", "--set", "data.size=8", "--set", "teacher.epochs=3"),
    *("--set", "schedule.batch_size=16", "--set", "schedule.steps_per_experience=2"),
)
"""A run that takes seconds."""


def commands(folder: Path) -> dict[str, Sequence[str]]:
    """What is timed, by the name of its row, once the run in ``folder`` is finished."""
    run = ("run", *SMALL, "--out", str(folder))
    (finished,) = (file.parent for file in folder.rglob("result.json"))
    answers: dict[str, Sequence[str]] = {
        "a usage error": ("run", "--method", "predfdk"),
        "`list methods`": ("list", "methods"),
        "`run --dry-run --no-timing`": ("run", "--dry-run", "--no-timing"),
        "a finished run, again": run,
        "`report`": ("report", str(finished)),
        "`compare`": ("compare", str(folder)),
    }
    timed: dict[str, Sequence[str]] = {name: (*LRA_BENCH, *arguments) for name, arguments in answers.items()}
    timed |= {f"(`import {name}`)": (sys.executable, "-c", f"import {name}") for name in ("torch", "avalanche")}
    return timed


class Spent(NamedTuple):
    """What a process took."""

    processor: float
    """Seconds of processor time."""
    wall: float
    """Wall-clock seconds from start to end."""
    status: int
    """Its wait status, 0 if it succeeded."""


def spent(command: Sequence[str], environment: Mapping[str, str], folder: str | None = None) -> Spent:
    """Run a command in ``folder``, by default the working directory, without output."""
    quiet, began = subprocess.DEVNULL, time.perf_counter()
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd=folder, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    return Spent(used.ru_utime + used.ru_stime, time.perf_counter() - began, status)


@click.command()
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@click.option("--core", type=click.IntRange(0), default=0, show_default=True, help="Core to run on.")
def main(repeats: int, core: int) -> None:
    """Print a table of medians."""
    os.sched_setaffinity(0, {core})  # What is started from here stays there too.
    with tempfile.TemporaryDirectory(prefix="lra-") as place:
        environment = os.environ | {"LRA_CACHE": f"{place}/cache", "OMP_NUM_THREADS": "1"}
        folder = Path(place, "runs")
        done = [*LRA_BENCH, "run", *SMALL, "--out", str(folder)]
        subprocess.run(done, check=True, env=environment, capture_output=True)
        timed = commands(folder)
        found: dict[str, list[Spent]] = {name: [] for name in timed}
        for _ in range(repeats):
            for name, command in timed.items():
                found[name].append(spent(command, environment))
    rows = [
        [name, f"{median(one.processor for one in times):.2f}", f"{median(one.wall for one in times):.2f}"]
        for name, times in found.items()
    ]
    click.echo(markdown_table(["answer", "processor (s)", "wall (s)"], rows))


if __name__ == "__main__":
    main()
