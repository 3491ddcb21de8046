"""``lra-bench tasks``: teachers in sequence."""

from pathlib import Path
from typing import Any

import click

from lra.benchmarks.commands.options import PATH


@click.command()
@click.argument("file", type=PATH)
@click.option("--reuse", type=click.Choice(["anew", "common", "finetune", "fix"]), help="What aeahl-rg carries over.")
@click.option("--carry", metavar="A,B", help="What any method carries over whole, of generator,replay.")
@click.option("--steps", type=int, help="Budget of each task in student steps.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--out", type=PATH, help="Folder of the tasks. [default: runs/NAME OF FILE]")
@click.option("--json", "as_json", is_flag=True, help="Print what came of the tasks as one JSON object.")
def tasks(file: Path, out: Path | None, as_json: bool, carry: str | None, **given: Any) -> None:
    """Distil the teachers that a YAML file lists, in order, each run starting from what the last one left.

    Options win over the file. Finished tasks are not repeated; the same command goes on with one that failed.
    """
    from lra.benchmarks.commands.tasks_command import tasks_of

    if carry is not None:
        given["carry"] = [name for name in carry.split(",") if name]
    options = {key: value for key, value in given.items() if value is not None}
    click.echo(tasks_of(file, options, out or Path("runs") / file.stem, as_json))
