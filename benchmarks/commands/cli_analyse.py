"""Commands of ``lra-bench analyse``: figures and numbers about finished runs."""

from pathlib import Path

import click

from lra.benchmarks.commands.paths import PATH
from lra.benchmarks.progress import loading

OUT = click.option("--out", type=PATH, help="Where to. [default: the folder that is looked at]")

IMAGES = click.IntRange(1, 1_000_000)
SEED = click.IntRange(0, 2**32 - 1)


@click.group()
def analyse() -> None:
    """Look closer at finished runs; every command writes figures and a JSON file and prints their names."""


@analyse.command()
@click.argument("folder", metavar="TASKS", type=PATH)
@OUT
def convergence(folder: Path, out: Path | None) -> None:
    """Loss of every inner step of synthesis: anew against each way of reuse."""
    from lra.benchmarks.analyses.convergence import convergence as do

    _say(do(folder, out or folder))


@analyse.command()
@click.argument("folder", metavar="RUN", type=PATH)
@click.option("--images", type=IMAGES, default=256, show_default=True, help="Images of each kind.")
@click.option("--attack-steps", type=click.IntRange(0), default=200, show_default=True, help="To learn the attack in.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of everything random.")
@OUT
def behaviour(folder: Path, images: int, attack_steps: int, seed: int, out: Path | None) -> None:
    """Confidence and predicted classes of the teacher on real, synthetic and attacked images; of any finished run."""
    from lra.benchmarks.analyses.fitness import require_images

    require_images(folder)
    loading("torch", "avalanche")
    from lra.benchmarks.analyses.behaviour import behaviour as do

    _say(do(folder, out or folder, images, attack_steps, seed))


@analyse.command()
@click.argument("folder", metavar="RUN", type=PATH)
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Attacks for each source.")
@click.option("--iterations", type=click.IntRange(1), default=20, show_default=True, help="Of the bit search.")
@click.option("--images", type=IMAGES, default=128, show_default=True, help="Images an attacker has.")
@OUT
def bitflip(folder: Path, runs: int, iterations: int, images: int, out: Path | None) -> None:
    """Bit-flip attack on the 8-bit teacher of any finished run, from what an attacker may have.

    Real images, noise, and what the run made: its last batch, its generator's images; of aeahl-rg also images of new
    generators with parts of its own.
    """
    from lra.benchmarks.analyses.fitness import require_images

    require_images(folder)
    loading("torch", "avalanche")
    from lra.benchmarks.analyses.bit_flip_study import bit_flip_study

    _say(bit_flip_study(folder, out or folder, runs, iterations, images))


def _say(files: list[Path]) -> None:
    for file in files:
        click.echo(file)
