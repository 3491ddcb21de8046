"""``lra-bench quantize``: a run whose student is its teacher in few bits."""

import time
from pathlib import Path
from typing import Any

import click

from lra.benchmarks.commands.configured import DryRun, configured, tried
from lra.benchmarks.commands.paths import PATH

BITS = click.IntRange(2, 8)


@click.command()
@click.option("--weight-bits", type=BITS, help="Of weights. [default: 4]")
@click.option("--activation-bits", type=BITS, help="Of what layers take in. [default: 4]")
@click.option("--edge-bits", type=BITS, help="Of the first and last layer. [default: as all others]")
@click.option("--rgal/--no-rgal", default=None, help="RGAL's triplet terms, at 0.1 on both sides. [default: off]")
@configured
@click.option("--out", type=PATH, default=Path("runs"), show_default=True, help="Parent of runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@tried
def quantize(
    rgal: bool | None,
    out: Path,
    as_json: bool,
    dry_run: DryRun | None,
    **given: Any,
) -> None:
    """Make a student of few bits out of a teacher, without data.

    Simulated quantization: the student computes in floats on the values that so many bits can represent, which tells
    accuracy and size, and nothing about latency. It starts as a copy of the teacher with ranges from noise (min-max
    post-training quantization, reported beside the result) and learns from generated images, by GDFQ or another
    --method.
    """
    began = time.perf_counter()
    from lra.benchmarks.commands.summary import preview, show
    from lra.benchmarks.setup.quantize_flags import quantizing

    bits = {name: given.pop(name) for name in ("weight_bits", "activation_bits", "edge_bits")}
    config = quantizing(given, bits, rgal)
    if dry_run:
        click.echo(preview(config, out, as_json, dry_run == "timed", began), nl=False)
        return
    from lra.benchmarks.runs.finished import run

    show(run(config, out), as_json)
