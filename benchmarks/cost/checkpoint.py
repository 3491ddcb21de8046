"""What a checkpoint costs: size, time to write and to read, and the share of a run that writing takes.

    python -m lra.benchmarks.cost.checkpoint [--repeats N]

For small and large students on digits, and for a pool of 50,000 images of CIFAR's size. Written as in a run: the state
is captured and hashed, file and folder are synced to disk. A run does so once in `CHECKPOINT_SECONDS`.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch

from lra.benchmarks.cost.overhead import problem
from lra.benchmarks.files import read_checkpoint, write_checkpoint
from lra.benchmarks.runs.training import CHECKPOINT_SECONDS
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.memory.buffers import ImagePool
from lra.options import PoolOptions
from lra.strategies.checkpoint import capture
from lra.strategies.replay import PoolReplay

CASES: dict[str, dict[str, Any]] = {
    "LeNet5, memory bank": {"replay": "memory"},
    "LeNet5, memory generator": {"replay": "generative"},
    "ResNet-18, memory bank": {"replay": "memory", "student": {"network": "resnet18"}},
    "ResNet-18, pool of 50,000 images (3, 32, 32)": {"replay": "pool", "student": {"network": "resnet18"}},
}


def built(settings: dict[str, Any]) -> Experiment:
    """A run after two experiences, its pool filled."""
    config, data, _, teacher = problem(settings, {"schedule": {"steps": 2, "steps_per_experience": 1}})
    experiment = prepare(config, data, teacher, None, lambda record: None)
    experiment.strategy.train(experiment.stream)
    for plugin in experiment.strategy.plugins:
        if isinstance(plugin, PoolReplay):
            plugin.pool = ImagePool(PoolOptions())
            plugin.pool.add(torch.zeros(50_000, 3, 32, 32, dtype=torch.uint8), torch.zeros(50_000, dtype=torch.long), 0)
    return experiment


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of a piece of work."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return median(times)


@click.command()
@click.option("--repeats", default=7, show_default=True)
def main(repeats: int) -> None:
    """Measure and print a table."""
    click.echo("| run | MiB | write (ms) | read (ms) | share of the run |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        file, before = Path(place) / "checkpoint.pt", Path(place) / "before.pt"
        for name, settings in CASES.items():
            made = built(settings)

            def write(made: Experiment = made) -> None:
                write_checkpoint(file, capture(made.strategy, made.stream), before)

            writing = seconds(write, repeats)
            reading = seconds(lambda: read_checkpoint(file), repeats)
            size = file.stat().st_size / 2**20
            share = 100 * writing / (writing + CHECKPOINT_SECONDS)
            click.echo(f"| {name} | {size:.1f} | {1000 * writing:.0f} | {1000 * reading:.0f} | {share:.2f} % |")


if __name__ == "__main__":
    main()
