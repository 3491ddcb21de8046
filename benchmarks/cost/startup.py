"""How long answers take that need no training: whole processes on one core, beside imports they do without.

    python -m lra.benchmarks.cost.startup [--repeats N] [--core N]

The commands take turns, so that whatever else the machine does meets all of them alike; a row is a median.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import click

from lra.benchmarks.text import markdown_table

LRA_BENCH = (sys.executable, "-m", "lra.benchmarks")

SMALL = (
    *("--teacher", "mlp", "--student", "mlp", "--steps", "40", "--set", "data.size=8", "--set", "teacher.epochs=3"),
    *("--set", "schedule.batch_size=16", "--set", "schedule.steps_per_experience=2"),
)
"""A run of seconds."""


def commands(folder: Path) -> dict[str, Sequence[str]]:
    """What is timed, by the name of its row, once the run in ``folder`` is there."""
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


def seconds(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds of processor time, and as the clock on the wall has it, of a process from start to end."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, _, used = os.wait4(process.pid, 0)
    return used.ru_utime + used.ru_stime, time.perf_counter() - began


@click.command()
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@click.option("--core", type=click.IntRange(0), default=0, show_default=True, help="To stay on.")
def main(repeats: int, core: int) -> None:
    """Print a table of medians."""
    os.sched_setaffinity(0, {core})  # What is started from here stays there too.
    with tempfile.TemporaryDirectory(prefix="lra-") as place:
        environment = os.environ | {"LRA_CACHE": f"{place}/cache", "OMP_NUM_THREADS": "1"}
        folder = Path(place, "runs")
        done = [*LRA_BENCH, "run", *SMALL, "--out", str(folder)]
        subprocess.run(done, check=True, env=environment, capture_output=True)
        timed = commands(folder)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
        for _ in range(repeats):
            for name, command in timed.items():
                found[name].append(seconds(command, environment))
    rows = [[name, *(f"{median(column):.2f}" for column in zip(*times, strict=True))] for name, times in found.items()]
    click.echo(markdown_table(["answer", "processor (s)", "wall (s)"], rows))


if __name__ == "__main__":
    main()
