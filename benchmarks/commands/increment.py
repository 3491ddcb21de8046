"""``lra-bench increment``: class-incremental learning without exemplars."""

import json
from pathlib import Path

import click

from lra.benchmarks.commands.options import PATH


@click.command()
@click.option("--benchmark", default="split-digits", show_default=True, help="split- and a data set's name.")
@click.option(
    "--strategy",
    default="generative",
    show_default=True,
    metavar="NAME",
    help="naive, lwf, joint, buffer, avalanche-generative[-plugin]; without data: generative, rgal.",
)
@click.option("--meta/--no-meta", default=False, help="Take the LRA step: new samples acquire, replayed ones retain.")
@click.option("--experiences", type=int, default=5, show_default=True, help="How many; must divide the classes.")
@click.option("--steps", type=int, default=200, show_default=True, help="Optimiser steps per experience.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything, the order of classes too.")
@click.option("--model", default="resnet8", show_default=True, help="A network (see: list models).")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any option: generator_steps=500.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute.")
@click.option("--threads", type=int, help="Torch threads. [default: by the size of the model]")
@click.option("--out", type=PATH, default=Path("runs"), show_default=True, help="Parent of runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def increment(assignments: tuple[str, ...], meta: bool, out: Path, as_json: bool, **given: object) -> None:
    """Learn classes a few at a time with one head, and measure what is forgotten.

    The data-free strategies keep no sample: before each experience they train a generator from the model as it
    stands, and replay the old classes from it. Average accuracy, accuracy matrix and forgetting are Avalanche's.
    """
    from lra.benchmarks.increment.configuration import configuration
    from lra.benchmarks.increment.experiment import run, table

    config = configuration(given, assignments, meta)
    result, folder = run(config, out, lambda line: click.echo(line, err=True))
    click.echo(json.dumps(result | {"run_dir": str(folder)}) if as_json else table(result, folder))
