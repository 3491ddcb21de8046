"""Commands that look at runs: ``lra-bench show``, ``ls``, ``report``, ``compare``, ``export`` and ``analyse``."""

import json
import shlex
import sys
from pathlib import Path

import click

from lra.benchmarks.commands.options import AS_JSON, PATH
from lra.benchmarks.errors import UsageError
from lra.benchmarks.progress import loading

OUT = click.option("--out", type=PATH, help="Where to write. [default: the folder given]")

IMAGES = click.IntRange(1, 1_000_000)
SEED = click.IntRange(0, 2**32 - 1)


@click.command()
@click.argument("folder", metavar="RUN|SWEEP|TASKS", type=PATH)
@AS_JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print every evaluation of a run as CSV.")
def show(folder: Path, as_json: bool, as_csv: bool) -> None:
    """Show the result of a run, or how far it is.

    For a run, a sweep or tasks that have ended: what they printed at the end. For an unfinished run: its state and last
    evaluation. Unfinished sweeps and tasks are shown as far as they have come.
    """
    from lra.benchmarks.commands import summary
    from lra.benchmarks.comparison.groups import TASK_RECORD, sweep_record, task_record
    from lra.benchmarks.runs.run_folder import RunFolder

    if as_json and as_csv:
        raise UsageError("--json and --csv are two forms of the same: give one of them")
    if as_csv:
        click.echo(summary.evaluations(folder), nl=False)
    elif (folder / "sweep.json").is_file():
        from lra.benchmarks.commands.sweep import ending

        record = sweep_record(folder / "sweep.json")
        statuses = [str(run.get("status")) for run in record["runs"]]
        click.echo(json.dumps(record, indent=2) if as_json else ending(statuses, folder, folder / "report.html"))
    elif (folder / TASK_RECORD).is_file() and (folder / "report.md").is_file():
        from lra.benchmarks.tasks.task_report import told

        click.echo(told(folder, task_record(folder) if as_json else None))
    elif (folder / TASK_RECORD).is_file():
        click.echo(summary.listed(folder, as_json))
    elif RunFolder(folder).result is not None:
        summary.show(RunFolder(folder), as_json)
    else:
        click.echo(summary.progress_of(folder, as_json))


@click.command()
@click.argument("place", metavar="[DIR]", type=PATH, default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="Print the list as one JSON object.")
def ls(place: Path, as_json: bool) -> None:
    """List the runs in a folder: state, accuracy, age and size.

    A run is finished, running (a process holds its folder), stopped, or damaged. DIR is "runs" if not given.
    """
    from lra.benchmarks.commands.summary import listed

    click.echo(listed(place, as_json))


@click.command()
@click.argument("folder", metavar="RUN|SWEEP|TASKS", type=PATH)
def report(folder: Path) -> None:
    """Write report.html and print its path.

    For a run, finished or not; for a sweep or any other folder of runs; for tasks.
    """
    if (folder / "tasks.json").is_file():
        from lra.benchmarks.tasks.task_report import write_task_report

        click.echo(write_task_report(folder))
        return
    alone = any((folder / name).is_file() for name in ("result.json", "metrics.jsonl"))
    if (folder / "sweep.json").is_file() or (not alone and any(folder.rglob("result.json"))):
        from lra.benchmarks.reports.sweep_report import write_sweep_report

        click.echo(write_sweep_report(folder))
    else:
        from lra.benchmarks.runs.runner import kind_in

        click.echo(kind_in(folder).write_report(folder))


@click.command()
@click.argument("places", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option(
    "--against",
    multiple=True,
    metavar="LABEL|KEY=VALUE",
    help="The baseline; if given several times, one section each. [default: the same without the LRA step]",
)
@click.option("--columns", metavar="A,B,...", help="What to compare; the first in full. [default: the usual ones]")
@click.option(
    "--across",
    metavar="KEY",
    help="One table for each of --columns, with a column for each value of this setting, such as replay.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md", "latex", "csv", "json"]),
    default="table",
    show_default=True,
    help="Output format; csv and json are unrounded.",
)
@click.option("--figure", type=PATH, metavar="FILE", help="Draw a figure into an .svg or .png.")
@click.option(
    "--draw",
    type=click.Choice(["curves", "ranking", "cost"]),
    default="curves",
    show_default=True,
    help="What --figure shows: accuracy along the run, the first column ranked, or that column against its cost.",
)
@click.option("--write", type=PATH, metavar="FILE", help="Write a Markdown page that says how to repeat it.")
@click.option("--allow-different", is_flag=True, help="Compare runs with different teachers or data sets.")
def compare(
    places: tuple[Path, ...],
    against: tuple[str, ...],
    columns: str | None,
    across: str | None,
    form: str,
    figure: Path | None,
    draw: str,
    write: Path | None,
    allow_different: bool,
) -> None:
    """Compare finished runs over their seeds.

    Prints means with intervals, and differences paired by seed. RUN is a run folder, a sweep, or any folder that
    contains runs. Runs that differ only in the seed form one row.
    """
    from lra.benchmarks.comparison.compare import comparisons
    from lra.benchmarks.comparison.crossed import crossed
    from lra.benchmarks.comparison.tables import render

    if across and against:
        raise UsageError("--across shows no differences: give it without --against")
    found = comparisons(places, columns, () if across else against or (None,), allow_different)

    def tables(form: str) -> str:
        return crossed(found[0], across, form) if across else render(found, form)

    click.echo(tables(form), nl=False)
    if figure is not None:
        from lra.benchmarks.reports.sweep_report import write_figure

        write_figure(found[0], figure, draw)
        click.echo(f"drawn: {figure}", err=True)
    if write is not None:
        from lra.benchmarks.comparison.tables import markdown_page
        from lra.benchmarks.files import write_text

        command = shlex.join(["lra-bench", *sys.argv[1:]])
        write_text(write, markdown_page(found[0].groups, tables("md"), places, command, write.stem))
        click.echo(f"written: {write}", err=True)


@click.command()
@click.argument("folder", metavar="RUN", type=PATH)
@click.option(
    "--format",
    "formats",
    metavar="A,B,...",
    default="safetensors",
    show_default=True,
    help="One or several of safetensors, onnx and pt2.",
)
@click.option("--out", type=PATH, help="Where to write. [default: RUN/export]")
@click.option("--licence", help="Licence of the student's weights, for the model card: apache-2.0, or any name.")
def export(folder: Path, formats: str, out: Path | None, licence: str | None) -> None:
    """Export the student of a finished run, with a model card.

    Each exported model maps images in [0, 1] to logits: the normalisation is inside. Each file is loaded again and
    checked against the student.
    """
    from lra.benchmarks.export.exporting import export as do

    for file in do(folder, formats.split(","), out, licence):
        click.echo(file)


@click.group()
def analyse() -> None:
    """Analyse finished runs, in figures and a JSON file."""


@analyse.command()
@click.argument("folder", metavar="TASKS", type=PATH)
@OUT
def convergence(folder: Path, out: Path | None) -> None:
    """Compare the synthesis loss with and without reuse.

    At every inner step, for each way of reuse that the tasks were run with.
    """
    from lra.benchmarks.tasks.task_report import convergence as do

    _say(do(folder, out or folder))


@analyse.command()
@click.argument("folder", metavar="RUN", type=PATH)
@click.option("--images", type=IMAGES, default=256, show_default=True, help="Images of each kind.")
@click.option(
    "--attack-steps", type=click.IntRange(0), default=200, show_default=True, help="Training steps of the attack."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of everything random.")
@OUT
def behaviour(folder: Path, images: int, attack_steps: int, seed: int, out: Path | None) -> None:
    """Compare a teacher's answers on real and synthetic images.

    Confidence and predicted classes, also on attacked images; for any finished run.
    """
    from lra.benchmarks.runs.distillation import require_images

    require_images(folder)
    with loading("torch", "avalanche"):
        from lra.benchmarks.analyses.teachers import behaviour as do

    _say(do(folder, out or folder, images, attack_steps, seed))


@analyse.command()
@click.argument("folder", metavar="RUN", type=PATH)
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Attacks per source of images.")
@click.option("--iterations", type=click.IntRange(1), default=20, show_default=True, help="Steps of the bit search.")
@click.option("--images", type=IMAGES, default=128, show_default=True, help="Images available to the attacker.")
@OUT
def bitflip(folder: Path, runs: int, iterations: int, images: int, out: Path | None) -> None:
    """Flip the bits of a teacher that hurt it most.

    The attack is on the 8-bit teacher of any finished run, with images that an attacker may have: real ones, noise, the
    last batch of the run, and images of its generator; for aeahl-rg also images of new generators that share parts with
    it.
    """
    from lra.benchmarks.runs.distillation import require_images

    require_images(folder)
    with loading("torch", "avalanche"):
        from lra.benchmarks.analyses.teachers import bit_flip_study

    _say(bit_flip_study(folder, out or folder, runs, iterations, images))


def _say(files: list[Path]) -> None:
    for file in files:
        click.echo(file)
