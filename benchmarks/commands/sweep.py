"""``lra-bench sweep``: every run of a grid."""

from pathlib import Path

import click

from lra.benchmarks.commands.options import PATH
from lra.benchmarks.errors import UsageError

THREADS = click.IntRange(1, 1024)


@click.command()
@click.argument("grid", type=PATH)
@click.option("--out", type=PATH, help="Folder of the sweep. [default: runs/NAME OF GRID]")
@click.option("--workers", type=click.IntRange(1), help="Runs at a time. [default: as many as fit; one on a GPU]")
@click.option("--threads", type=THREADS, help="Torch threads of each run. [default: by the size of its networks]")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where to run.")
@click.option("--address", help="Ray cluster to use, such as auto. [default: start one on this machine]")
@click.option(
    "--gpus", type=click.FloatRange(0), default=0.0, help="GPUs of each run under ray; 0.25 puts four on one."
)
@click.option("--json", "as_json", is_flag=True, help="Print the sweep's record as one JSON object.")
@click.option("--dry-run", is_flag=True, help="Print the runs and what they would take; write nothing.")
def sweep(
    grid: Path,
    out: Path | None,
    workers: int | None,
    threads: int | None,
    engine: str,
    address: str | None,
    gpus: float,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Do every run of a YAML grid that is not finished yet.

    In the grid, lists are axes and scalars are fixed: method: [predfkd, dfq], seed: [0, 1, 2], steps: 400,
    set: {student.lr: [0.03, 0.1]}.
    """
    if engine == "local" and (address is not None or gpus):
        raise UsageError("--address and --gpus are for --engine ray")
    from lra.benchmarks.commands.sweep_command import estimate, perform

    place = out or Path("runs") / grid.stem
    if dry_run:
        for line in estimate(grid, place, workers, threads, as_json):
            click.echo(line)
    else:
        click.echo(perform(grid, place, engine, workers, threads, address, gpus, as_json))
