"""The ``lra-bench`` command. Nothing heavy is imported before a command needs it, so that --help is quick."""

import errno
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import click

from lra import __version__
from lra.benchmarks.commands.cli_analyse import analyse
from lra.benchmarks.commands.cli_increment import increment
from lra.benchmarks.commands.cli_many import compare, export, sweep
from lra.benchmarks.commands.cli_quantize import quantize
from lra.benchmarks.commands.cli_tasks import tasks
from lra.benchmarks.commands.cli_teacher import data, teacher
from lra.benchmarks.commands.configured import DryRun, configured, tried
from lra.benchmarks.commands.paths import PATH
from lra.benchmarks.errors import LraError, UsageError, in_one_line

MOST = 1000
"""Characters of a complaint at most; what it quotes may be a whole file."""

PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
"""What the system finds wrong with a path."""

NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What newer versions of click raise to show the help of a group called without a command."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="lra-bench")
def cli() -> None:
    """Data-free knowledge distillation as continual learning.

    A generator makes samples, a teacher labels them, a student learns; every generator update opens a new
    experience, and the student must retain what it learnt from earlier ones.
    """


for other in (analyse, compare, data, export, increment, quantize, sweep, tasks, teacher):
    cli.add_command(other)


on_divergence = click.option(
    "--on-divergence",
    type=click.Choice(["stop", "rollback"]),
    help="At NaN or exploding numbers: stop, or go on from the last evaluation at half the rate. [default: stop]",
)


@cli.command()
@configured
@on_divergence
@click.option("--out", type=PATH, default=Path("runs"), show_default=True, help="Parent of runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@tried
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard events into the run folder.")
@click.option("--wandb", type=click.Choice(["offline", "online"]), help="Keep a Weights & Biases record, or send it.")
def run(
    out: Path,
    as_json: bool,
    dry_run: DryRun | None,
    tensorboard: bool,
    wandb: Literal["offline", "online"] | None,
    **given: Any,
) -> None:
    """Distil a teacher into a student, and report.

    A finished run is not repeated, and one that was stopped goes on where it was saved.
    """
    began = time.perf_counter()
    from lra.benchmarks.setup.assemble import configuration

    config = configuration(**given)
    if dry_run:
        from lra.benchmarks.commands.summary import preview

        click.echo(preview(config, out, as_json, dry_run == "timed", began), nl=False)
        return
    from lra.benchmarks.commands.summary import show
    from lra.benchmarks.runs.finished import run as do
    from lra.benchmarks.runs.trackers import asked_for

    show(do(config, out, asked_for(tensorboard, wandb)), as_json)


@cli.command()
@click.argument("folder", type=PATH)
@on_divergence
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def resume(folder: Path, on_divergence: Literal["stop", "rollback"] | None, as_json: bool) -> None:
    """Go on with a run, or tasks in sequence, that were stopped or failed."""
    if (folder / "tasks.json").is_file():
        from lra.benchmarks.commands.tasks_command import resume as go_on

        click.echo(go_on(folder, on_divergence, as_json))
        return
    if (folder / "sweep.json").is_file():
        raise UsageError(f"{folder} is a sweep: the command that began it goes on, lra-bench sweep GRID --out {folder}")
    from lra.benchmarks.commands.summary import show
    from lra.benchmarks.runs.finished import resume as do

    show(do(folder, on_divergence), as_json)


@cli.command()
@click.argument("folder", metavar="RUN|SWEEP", type=PATH)
def report(folder: Path) -> None:
    """Write report.html and print its path: of a run, finished or not, or of a sweep or other folder of runs."""
    if (folder / "tasks.json").is_file():
        from lra.benchmarks.tasks.task_report import write_task_report

        click.echo(write_task_report(folder))
        return
    alone = any((folder / name).is_file() for name in ("result.json", "metrics.jsonl"))
    if not alone and any(folder.rglob("result.json")):
        from lra.benchmarks.reports.sweep_report import write_sweep_report

        click.echo(write_sweep_report(folder))
    else:
        from lra.benchmarks.reports.report import write_report

        click.echo(write_report(folder))


@cli.command(name="list")
@click.argument("what", type=click.Choice(["methods", "replays", "presets", "scales", "datasets", "models", "plugins"]))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def list_(what: str, as_json: bool) -> None:
    """List what there is to choose from."""
    from lra.benchmarks.commands.summary import catalogue

    entries = catalogue(what)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
    else:
        width = max(map(len, entries), default=0)
        click.echo("\n".join(f"{name:{width}}  {text}".rstrip() for name, text in entries.items()))


def main() -> None:
    """Run the command; every foreseen trouble is one line on stderr and an exit code."""
    # Avalanche's dependencies warn at import about optional solvers.
    warnings.filterwarnings("ignore", module="qpsolvers")
    try:
        with in_one_line():
            code = cli.main(prog_name="lra-bench", standalone_mode=False) or 0
    except NO_ARGUMENTS as error:
        click.echo(error.format_message())
        code = 2
    except click.ClickException as error:
        code = _complain(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):  # click makes the one of the other
        code = _complain("stopped at once; the same command starts it again", 130)
    except LraError as error:
        code = _complain(str(error), error.code)
    except OSError as error:
        path = error.errno in PATHS
        code = _complain(f"{error}: {'check the path' if path else 'make room, or see to the permissions'}", 1 + path)
    sys.exit(code)


def _complain(message: str, code: int) -> int:
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(message.split()))
    click.echo(f"lra-bench: {line if len(line) < MOST else line[:MOST] + ' ...'}", err=True)
    return code
