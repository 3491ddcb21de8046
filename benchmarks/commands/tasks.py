"""``lra-bench tasks``: teachers in sequence, from a file to runs and their report."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lra.benchmarks.commands.options import PATH, DryRun, assigned, tried

if TYPE_CHECKING:
    from lra.benchmarks.tasks.task_file import TaskPlan


@click.command()
@click.argument("file", type=PATH)
@click.option("--reuse", type=click.Choice(["anew", "common", "finetune", "fix"]), help="What aeahl-rg carries over.")
@click.option("--carry", metavar="A,B", help="What any method carries over whole: generator, replay or both.")
@click.option("--steps", type=int, help="Budget of each task in student steps.")
@click.option("--seed", type=int, help="Seed of everything random.")
@assigned("Set any option of all tasks.")
@click.option("--threads", type=int, help="Torch threads. [default: by the size of the networks]")
@click.option("--out", type=PATH, help="Folder of the tasks. [default: runs/NAME OF FILE]")
@click.option("--json", "as_json", is_flag=True, help="Print the result of the tasks as one JSON object.")
@tried
def tasks(
    file: Path,
    out: Path | None,
    as_json: bool,
    carry: str | None,
    assignments: tuple[str, ...],
    dry_run: DryRun | None,
    **given: Any,
) -> None:
    """Distil several teachers in order, one run after another.

    The YAML file lists them; options override the file. For each way of reuse and each seed the tasks are done once, in
    folders of their own. What is finished is not repeated; the same command continues what failed.
    """
    from lra.benchmarks.tasks.task_file import read_plan

    given["carry"] = carry
    planned = read_plan(file, {key: value for key, value in given.items() if value is not None}, assignments)
    place = out or Path("runs") / file.stem
    if dry_run == "untimed":
        from lra.benchmarks.commands.sweep import untimed
        from lra.benchmarks.tasks.chains import listed

        click.echo(untimed(listed(planned, place), as_json))
    elif dry_run:
        for line in _estimated(planned, place, as_json):
            click.echo(line)
    else:
        click.echo(_done(planned, place, as_json))


def resume(out: Path, on_divergence: Literal["stop", "rollback"] | None, as_json: bool) -> str:
    """Go on with the tasks of a folder; returns what is to be printed.

    Args:
        out: the folder.
        on_divergence: in place of what the tasks were started with.
        as_json: print JSON.

    Raises:
        LraError: as `lra.benchmarks.tasks.chains.perform`, and if the folder holds no tasks.
    """
    from lra import __version__
    from lra.benchmarks.comparison.groups import TASK_RECORD, task_record
    from lra.benchmarks.errors import concerning
    from lra.benchmarks.setup.resolution import origin
    from lra.benchmarks.tasks.task_file import plan, with_settings

    record = task_record(out)
    tree = with_settings(record["file"], {} if on_divergence is None else {"on_divergence": on_divergence})
    code = {str(top): str(folder) for top, folder in record.get("code", {}).items()}
    with concerning(origin("tasks", out / TASK_RECORD, record.get("lra", __version__))):
        planned = plan(tree, Path(str(record.get("base", "."))), code)
    return _done(planned, out, as_json)


def _done(planned: "TaskPlan", out: Path, as_json: bool) -> str:
    from lra.benchmarks.comparison.groups import task_record
    from lra.benchmarks.tasks.chains import perform
    from lra.benchmarks.tasks.task_report import told, write_task_report

    perform(planned, out)
    write_task_report(out)
    return told(out, task_record(out) if as_json else None)


def _estimated(planned: "TaskPlan", out: Path, as_json: bool) -> Iterator[str]:
    """Lines on what each task would take."""
    from lra.benchmarks.sweeps.sweep import told
    from lra.benchmarks.tasks.chains import estimated

    rows, teachers = estimated(planned, out)
    if as_json:
        yield json.dumps({"runs": rows, "workers": 1})
    else:
        yield from told(rows, 1, teachers)
