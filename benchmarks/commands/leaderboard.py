"""``lra-bench reproduce``, which measures a row of the leaderboard again, and ``leaderboard``, which makes some."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lra.benchmarks.commands.options import PATH, DryRun, completing, tried
from lra.benchmarks.errors import LraError, UsageError, concerning


def _names(given: dict[str, Any]) -> list[str]:
    from lra.benchmarks.leaderboard.board import board

    with suppress(LraError):
        return [*board()]
    return []


@click.command()
@click.argument("name", metavar="ROW", shell_complete=completing(_names))
@click.option(
    "--seeds", type=click.IntRange(1, 1000), help="How many: the row's own, then the next. [default: all of its own]"
)
@click.option("--out", type=PATH, help="Folder of the sweep. [default: runs/reproduced/ROW]")
@click.option("--workers", type=click.IntRange(1), help="Runs at a time. [default: as many as fit; one on a GPU]")
@click.option("--device", help="Where to compute. [default: cpu]")
@click.option("--board", "file", type=PATH, metavar="FILE", help="A CSV file of rows, in place of the leaderboard.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
@tried
def reproduce(
    name: str,
    seeds: int | None,
    out: Path | None,
    workers: int | None,
    device: str | None,
    file: Path | None,
    as_json: bool,
    dry_run: DryRun | None,
) -> None:
    """Measure a row of the leaderboard again.

    Says whether the result agrees. ROW is a name from list leaderboard. The runs are an ordinary sweep: finished ones
    are not repeated, and the same command continues it. The result agrees if its mean lies in the interval where, by
    the row's mean, deviation and seeds, 95 % of such means lie. Exits with 1 if not.
    """
    from lra.benchmarks.commands.sweep import at_a_time, done, estimated, settled_all, states, untimed
    from lra.benchmarks.files import plain_name
    from lra.benchmarks.leaderboard.board import board, found, read
    from lra.benchmarks.leaderboard.cells import grid_of
    from lra.benchmarks.runs.kind import kind_of
    from lra.benchmarks.runs.machine import refuse_device
    from lra.benchmarks.sweeps.engines import LocalEngine
    from lra.benchmarks.sweeps.grid import plan

    row = found(name, board() if file is None else read(file))
    with concerning(f"row {name}"):
        grid = grid_of(row, row.first(seeds or len(row.seeds)), device)
        planned = plan(grid)
        kind_of(planned[0].config).require(planned[0].config)
    place = out or Path("runs") / "reproduced" / plain_name(name)
    if dry_run == "untimed":
        click.echo(untimed(states(planned, place), as_json))
        return
    refuse_device(planned[0].config.device)
    planned = settled_all(planned, place, None)
    number = workers or at_a_time(planned)
    if dry_run:
        for line in estimated(planned, place, number, as_json):
            click.echo(line)
        return
    ending = done(grid, planned, place, LocalEngine(number, []))
    if not as_json:
        click.echo(ending)
    _judge(name, place, file, as_json)


def _judge(name: str, place: Path, file: Path | None, as_json: bool) -> None:
    """Print whether the sweep in ``place`` agrees with a row; raises `LraError` if it does not."""
    from lra.benchmarks.comparison.compare import compare
    from lra.benchmarks.increment.configuration import PREFIX
    from lra.benchmarks.leaderboard.board import board, found, read, verdict
    from lra.benchmarks.setup.datasets import data_set

    row = found(name, board() if file is None else read(file))
    (group,) = compare([place], row.quantity).groups
    images = data_set(row.dataset.removeprefix(PREFIX)).test_images
    values = group.values(row.measured)
    told = verdict(row, list(values.values()), images)
    if as_json:
        click.echo(json.dumps({"row": name} | asdict(told) | {"values": values, "out": str(place)}))
    else:
        scatter = "" if told.sd is None else f", sd {told.sd:.{row.measured.digits}f}"
        click.echo(f"row         {row.summary} ({row.source}, {row.version})")
        click.echo(f"here        {told.mean:.{row.measured.digits}f}, {told.n} seed{'s' * (told.n > 1)}{scatter}")
        click.echo(f"verdict     {told}")
    if told.agrees is False:
        raise LraError(f"row {name} is not reproduced: {told.mean:.2f} where it says {row.interval}")


@click.group()
def leaderboard() -> None:
    """Make rows of the leaderboard, and check them.

    The command "list leaderboard" shows it, and "reproduce" measures a row again.
    """


@leaderboard.command()
@click.argument("sweep", type=PATH)
@click.option("--quantity", default="accuracy", show_default=True, help="The measured quantity, in percent.")
@click.option("--to", "file", type=PATH, metavar="FILE", help="[default: benchmarks/leaderboard/NAME OF SWEEP.csv]")
def add(sweep: Path, quantity: str, file: Path | None) -> None:
    """Make a row of every configuration in a finished sweep.

    The rows form one file of the leaderboard, which is overwritten. All seeds of the sweep are used, and nothing has to
    be filled in by hand.
    """
    from lra.benchmarks.leaderboard.board import write
    from lra.benchmarks.leaderboard.cells import of_sweep

    if file is None:
        file = Path("benchmarks/leaderboard") / f"{sweep.resolve().name}.csv"
        if not file.parent.is_dir():
            raise UsageError(f"no folder {file.parent} here: call it in a clone of the repository, or give --to FILE")
    elif file.suffix != ".csv":
        raise UsageError(f"--to {file}: a file of the leaderboard ends in .csv")
    rows = of_sweep(sweep, quantity)
    write(file, rows)
    click.echo(f"{file}: {len(rows)} row{'s' * (len(rows) > 1)}; propose it as a change of the repository")


@leaderboard.command()
@click.argument("paths", metavar="[FILE]...", nargs=-1, type=PATH)
@click.option(
    "--restate", is_flag=True, help="Update rows to what their commands resolve to now, where no result has changed."
)
def check(paths: tuple[Path, ...], restate: bool) -> None:
    """Check columns, values and commands of the leaderboard.

    Checks all its files, unless some are given. Each command must resolve to the configuration whose hash its row
    states. Where only an option has been added since, the hash has changed but no result has: --restate updates it.
    Where a default has changed, add the old value to the command.
    """
    from lra.benchmarks.leaderboard.board import FOLDER, read, write
    from lra.benchmarks.leaderboard.cells import complaints, restated

    files = paths or sorted(FOLDER.glob("*.csv"))
    boards = {file: read(file) for file in files}
    wrong = {file: list(complaints(rows)) for file, rows in boards.items()}
    for line in (line for lines in wrong.values() for line in lines):
        click.echo(line, err=True)
    changed = [file for file in files if wrong[file]]
    if restate:
        for file in changed:
            write(file, restated(boards[file]))
            click.echo(f"restated: {file}")
    elif changed:
        raise UsageError(f"{sum(map(len, wrong.values()))} values do not hold; see lra-bench leaderboard check --help")
    count = sum(map(len, boards.values()))
    click.echo(f"{count} row{'s' * (count > 1)} in {len(boards)} file{'s' * (len(boards) > 1)}")
