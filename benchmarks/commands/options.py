"""What several commands of ``lra-bench`` take: paths, the options of a configuration, those of a dry run."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.places import local

Command = Callable[..., Any]
DryRun = Literal["timed", "untimed"]


class LocalPath(click.Path):
    """A path of this machine, with ``~`` expanded: shells leave it in ``--out=~/runs``."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; `UsageError` for a URL or one of Windows."""
        path = local(str(value), "path" if param is None else param.opts[0])
        super().convert(path, param, ctx)
        return path


PATH = LocalPath()

OUT = click.option("--out", type=PATH, default=Path("runs"), show_default=True, help="Parent of runs.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
ON_DIVERGENCE = click.option(
    "--on-divergence",
    type=click.Choice(["stop", "rollback"]),
    help="At NaN or exploding numbers: stop, or go on from the last evaluation at half the rate. [default: stop]",
)


def tried(command: Command) -> Command:
    """Add the options of a dry run; ``command`` is given the ``dry_run`` that is wanted, timed, untimed, or none."""

    @wraps(command)
    def given(dry_run: bool, no_timing: bool, **others: Any) -> Any:
        if no_timing and not dry_run:
            raise UsageError("--no-timing is for --dry-run: give both, or neither")
        return command(dry_run=("untimed" if no_timing else "timed") if dry_run else None, **others)

    options = [
        click.option(
            "--dry-run",
            is_flag=True,
            help="Build the run, time its first steps, print its configuration and what it would take; write nothing.",
        ),
        click.option(
            "--no-timing", is_flag=True, help="With --dry-run: check and print the configuration alone, at once."
        ),
    ]
    for option in reversed(options):
        given = option(given)
    return given


def configured(command: Command) -> Command:
    """Add the options that make up a configuration."""
    options = [
        click.option("--method", help="How samples are made (see: list methods). [default: predfkd]"),
        click.option("--replay", help="What the student sees again (see: list replays). [default: the method's own]"),
        click.option("--meta/--no-meta", default=None, help="Take the LRA step. [default: off]"),
        click.option("--dataset", help="Data to evaluate on (see: list datasets). [default: digits]"),
        click.option("--teacher", help="A network to train on that data (see: list models), or a weights file."),
        click.option("--student", help="The student's network (see: list models)."),
        click.option("--steps", type=int, help="Budget in student steps, in place of epochs."),
        click.option("--seed", type=int, help="Seed of everything random. [default: 0]"),
        click.option("--preset", help="A named cell (see: list presets)."),
        click.option("--config", "config_file", type=PATH, help="A YAML configuration."),
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any option: student.lr=0.05."),
        click.option("--plugin", "plugins", multiple=True, metavar="MODULE:CLASS", help="An Avalanche plugin to add."),
        click.option("--hard-loss/--no-hard-loss", default=None, help="Of aeahl-rg: learn the teacher's classes too."),
        click.option("--aea/--no-aea", default=None, help="Of aeahl-rg: attack some images. [default: on]"),
        click.option("--device", help="Where to compute: cpu, cuda, cuda:1. [default: cpu]"),
        click.option("--threads", type=int, help="Torch threads. [default: by the size of the networks]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command
