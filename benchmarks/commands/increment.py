"""``lra-bench increment``: class-incremental learning without exemplars."""

import time
from pathlib import Path

import click

from lra.benchmarks.commands.options import AS_JSON, OUT, PATH, DryRun, tried


@click.command()
@click.option("--benchmark", help="split- and a data set's name. [default: split-digits]")
@click.option(
    "--strategy",
    metavar="NAME",
    help="naive, lwf, joint, buffer, avalanche-generative[-plugin]; without data: generative (the default), rgal.",
)
@click.option("--meta/--no-meta", default=None, help="LRA step: new samples acquire, replayed retain. [default: off]")
@click.option("--experiences", type=int, help="How many; must divide the classes. [default: 5]")
@click.option("--steps", type=int, help="Optimiser steps per experience. [default: 200]")
@click.option("--seed", type=int, help="Of everything, the order of classes too. [default: 0]")
@click.option("--model", help="A network (see: list models). [default: resnet8]")
@click.option("--config", "config_file", type=PATH, help="The config.yaml of another such run.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any option: generator_steps=500.")
@click.option("--device", help="Where to compute. [default: cpu]")
@click.option("--threads", type=int, help="Torch threads. [default: by the size of the model]")
@OUT
@AS_JSON
@tried
def increment(
    assignments: tuple[str, ...],
    meta: bool | None,
    config_file: Path | None,
    out: Path,
    as_json: bool,
    dry_run: DryRun | None,
    **given: object,
) -> None:
    """Learn classes a few at a time with one head, and measure what is forgotten.

    The data-free strategies keep no sample: before each experience they train a generator from the model as it
    stands, and replay the old classes from it. Accuracy matrix and forgetting are as Avalanche has them.
    """
    began = time.perf_counter()
    from lra.benchmarks.commands.summary import preview, show
    from lra.benchmarks.increment.configuration import configuration
    from lra.benchmarks.runs.runner import run

    config = configuration(given, assignments, meta, config_file)
    if dry_run:
        click.echo(preview(config, out, as_json, dry_run == "timed", began), nl=False)
    else:
        show(run(config, out), as_json)
