"""Commands of ``lra-bench`` on runs that are there, or many: sweep, compare, export."""

import shlex
import sys
from pathlib import Path

import click

from lra.benchmarks.commands.paths import PATH

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
    from lra.benchmarks.commands.sweep_command import estimate, perform

    place = out or Path("runs") / grid.stem
    if dry_run:
        for line in estimate(grid, place, workers, threads, as_json):
            click.echo(line)
    else:
        click.echo(perform(grid, place, engine, workers, threads, address, gpus, as_json))


@click.command()
@click.argument("places", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--against", metavar="LABEL|KEY=VALUE", help="The baseline. [default: the same without the meta step]")
@click.option("--columns", metavar="A,B,...", help="What to compare; the first in full. [default: most there is]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md", "latex", "csv", "json"]),
    default="table",
    show_default=True,
    help="How to print it; csv and json are unrounded.",
)
@click.option("--figure", type=PATH, metavar="FILE", help="Draw the curves into an .svg or .png.")
@click.option("--write", type=PATH, metavar="FILE", help="Write a Markdown page to repeat it by.")
@click.option("--allow-different", is_flag=True, help="Compare runs of several teachers or data sets.")
def compare(
    places: tuple[Path, ...],
    against: str | None,
    columns: str | None,
    form: str,
    figure: Path | None,
    write: Path | None,
    allow_different: bool,
) -> None:
    """Compare finished runs: means over seeds with intervals, and differences paired by seed.

    RUN is a run folder, a sweep, or any folder that holds some. Runs that differ in the seed alone are one row.
    """
    from lra.benchmarks.comparison.compare import compare as do
    from lra.benchmarks.comparison.comparison_table import render

    found = do(places, columns, against, allow_different)
    click.echo(render(found, form), nl=False)
    if figure is not None:
        from lra.benchmarks.reports.comparison_figure import write_figure

        write_figure(found.groups, figure)
        click.echo(f"drawn: {figure}", err=True)
    if write is not None:
        from lra.benchmarks.comparison.page import page
        from lra.benchmarks.files import write_text

        write_text(write, page(found, places, shlex.join(["lra-bench", *sys.argv[1:]]), write.stem))
        click.echo(f"written: {write}", err=True)


@click.command()
@click.argument("folder", metavar="RUN", type=PATH)
@click.option("--format", "formats", default="safetensors", show_default=True, help="Of safetensors,onnx,pt2, several.")
@click.option("--out", type=PATH, help="Where to. [default: RUN/export]")
@click.option("--licence", help="Of the student's weights, for the model card: apache-2.0, or any name.")
def export(folder: Path, formats: str, out: Path | None, licence: str | None) -> None:
    """Write the student of a finished run for use elsewhere, with a model card.

    Each file takes images in [0, 1] and gives logits: the normalisation is inside. Each is loaded again and compared
    with the student before it counts.
    """
    from lra.benchmarks.export.exporting import export as do

    for file in do(folder, formats.split(","), out, licence):
        click.echo(file)
