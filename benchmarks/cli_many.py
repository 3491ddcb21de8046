"""Commands of ``lra-bench`` on many runs: sweep, compare."""

from pathlib import Path

import click

from lra.benchmarks.errors import LraError


@click.command()
@click.argument("grid", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Parent of runs.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes, one thread each.")
def sweep(grid: Path, out: Path, workers: int) -> None:
    """Do every run of a YAML grid that is not finished yet."""
    from lra.benchmarks import sweep as engine
    from lra.benchmarks.assemble import read_config

    tree = read_config(grid)
    failures = engine.report(engine.sweep(tree, out, workers), len(engine.expand(tree)))
    if failures:
        raise LraError(f"{failures} runs failed; the lines above say why")


@click.command()
@click.argument("places", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
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
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Draw the curves into an .svg or .png.")
@click.option("--allow-different", is_flag=True, help="Compare runs of several teachers or data sets.")
def compare(
    places: tuple[Path, ...],
    against: str | None,
    columns: str | None,
    form: str,
    figure: Path | None,
    allow_different: bool,
) -> None:
    """Compare finished runs: means over seeds with intervals, and differences paired by seed.

    RUN is a run folder, a sweep, or any folder that holds some. Runs that differ in the seed alone are one row.
    """
    from lra.benchmarks.compare import compare as do
    from lra.benchmarks.comparison_table import render

    found = do(places, columns, against, allow_different)
    click.echo(render(found, form), nl=False)
    if figure is not None:
        from lra.benchmarks.comparison_figure import write_figure

        write_figure(found.groups, figure)
        click.echo(f"drawn: {figure}", err=True)
