"""``lra-bench tasks``: teachers in sequence, from a file to runs and their report."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lra.benchmarks.commands.options import PATH

if TYPE_CHECKING:
    from lra.benchmarks.tasks.task_file import TaskPlan


@click.command()
@click.argument("file", type=PATH)
@click.option("--reuse", type=click.Choice(["anew", "common", "finetune", "fix"]), help="What aeahl-rg carries over.")
@click.option("--carry", metavar="A,B", help="What any method carries over whole, of generator,replay.")
@click.option("--steps", type=int, help="Budget of each task in student steps.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any option of all tasks.")
@click.option("--threads", type=int, help="Torch threads. [default: by the size of the networks]")
@click.option("--out", type=PATH, help="Folder of the tasks. [default: runs/NAME OF FILE]")
@click.option("--json", "as_json", is_flag=True, help="Print what came of the tasks as one JSON object.")
@click.option("--dry-run", is_flag=True, help="Print the tasks and what they would take; write nothing.")
def tasks(
    file: Path,
    out: Path | None,
    as_json: bool,
    carry: str | None,
    assignments: tuple[str, ...],
    dry_run: bool,
    **given: Any,
) -> None:
    """Distil the teachers that a YAML file lists, in order, each run starting from what the last one left.

    Options win over the file. Finished tasks are not repeated; the same command goes on with one that failed.
    """
    if carry is not None:
        given["carry"] = [name for name in carry.split(",") if name]
    options = {key: value for key, value in given.items() if value is not None}
    planned, place = _planned(file, options, assignments), out or Path("runs") / file.stem
    if dry_run:
        for line in _estimated(planned, place, as_json):
            click.echo(line)
    else:
        click.echo(_done(planned, place, as_json))


def _planned(file: Path, given: Mapping[str, Any], assignments: tuple[str, ...]) -> "TaskPlan":
    from lra.benchmarks.errors import concerning
    from lra.benchmarks.records import flatten
    from lra.benchmarks.setup.layers import parse_assignment
    from lra.benchmarks.setup.resolution import read_options
    from lra.benchmarks.tasks.task_file import plan, with_settings

    tree = read_options(file, "tasks")
    settings = dict(pair for text in assignments for pair in flatten(parse_assignment(text)))
    words = [f"--{key} {','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in given.items()]
    options = " ".join([*words, *(f"--set {text}" for text in assignments)])
    with concerning(f"tasks {file}" + (f" with {options}" if options else "")):
        return plan(with_settings(tree | dict(given), settings), file.parent)


def resume(out: Path, on_divergence: Literal["stop", "rollback"] | None, as_json: bool) -> str:
    """Go on with the tasks of a folder; returns what is to be printed.

    Args:
        out: the folder.
        on_divergence: in place of what the tasks were started with.
        as_json: print JSON.

    Raises:
        LraError: as `lra.benchmarks.tasks.task_stream.perform`, and if the folder holds no tasks.
    """
    from lra import __version__
    from lra.benchmarks.errors import concerning
    from lra.benchmarks.setup.resolution import origin
    from lra.benchmarks.tasks.task_file import plan
    from lra.benchmarks.tasks.task_stream import RECORD, read_record

    record = read_record(out)
    tree = record["file"]
    if on_divergence is not None:
        tree = tree | {"set": (tree.get("set") or {}) | {"on_divergence": on_divergence}}
    code = {str(top): str(folder) for top, folder in record.get("code", {}).items()}
    with concerning(origin("tasks", out / RECORD, record.get("lra", __version__))):
        planned = plan(tree, Path(str(record.get("base", "."))), code)
    return _done(planned, out, as_json)


def _done(planned: "TaskPlan", out: Path, as_json: bool) -> str:
    from lra.benchmarks.tasks.task_report import write_task_report
    from lra.benchmarks.tasks.task_stream import perform, read_record

    perform(planned, out)
    page = write_task_report(out)
    if as_json:
        return json.dumps(read_record(out) | json.loads((out / "report.json").read_text()))
    return f"{page.with_suffix('.md').read_text()}\nreport      {page}"


def _estimated(planned: "TaskPlan", out: Path, as_json: bool) -> Iterator[str]:
    """Lines on what each task would take, without what it takes over, which changes nothing much of that."""
    from lra.benchmarks.sweeps.grid import Planned
    from lra.benchmarks.sweeps.sweep import dry_run, located, record

    runs = [
        Planned(f"{name}, reuse {chain.reuse}, seed {chain.seed}", planned.config(index, chain))
        for chain in planned.chains
        for index, name in enumerate(planned.names)
    ]
    entries = located(runs, out, train=False)
    if as_json:
        yield json.dumps({"runs": record(entries, out), "workers": 1})
    else:
        yield from dry_run(entries, 1, out)
