"""A soak test: one run of many experiences, and the time and memory that each stretch of it takes.

    python -m lra.benchmarks.cost.soak [--experiences N] [--stretches N]

A whole run, as ``lra-bench run`` does it: memory bank, LRA step, probes, evaluation, records on disk and checkpoints at
intervals of time; with a tiny student, so that nothing hides what the stream itself costs. Time is CPU time; memory is
what the process holds at the end of the stretch.
"""

import os
import tempfile
import time
from pathlib import Path

import click
import torch

from lra.benchmarks.cost.overhead import problem
from lra.benchmarks.runs.progress import RunProgress
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.runs.training import Training
from lra.benchmarks.setup.experiment import Experiment

SETTINGS = {
    "method": "predfkd",
    "data": {"name": "digits", "size": 8},
    "replay": {"name": "memory", "period": 1},
    "meta": True,
    "teacher": {"network": "mlp", "epochs": 10},
    "student": {"network": "mlp"},
    "synthesis": {"latent": 16, "width": 4},
    "schedule": {"batch_size": 16, "steps_per_experience": 1, "experiences_per_epoch": 20},
    "evaluation": {"every": 5, "probe_size": 16, "samples": 0},
}


class Stretches(RunProgress):
    """Prints what each stretch of a run took, in place of progress."""

    def __init__(self, experiment: Experiment, count: int):
        super().__init__(experiment, quiet=True)
        self.each = experiment.stream.length // count
        self.begun = time.process_time()

    def advance(self, position: int) -> None:
        """Print a row, if a stretch is over."""
        if position % self.each == 0:
            spent = 1000 * (time.process_time() - self.begun) / self.each
            click.echo(f"| {position:,} | {spent:.3f} | {held():.0f} |")
            self.begun = time.process_time()


def held() -> float:
    """Memory that this process holds, in MiB (Linux only)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@click.command()
@click.option("--experiences", default=24_000, show_default=True)
@click.option("--stretches", default=12, show_default=True)
@click.option("--threads", default=1, show_default=True, help="Torch threads; so small a run gains nothing from more.")
def main(experiences: int, stretches: int, threads: int) -> None:
    """Run, and print a row for each stretch."""
    torch.set_num_threads(threads)
    config, data, test, teacher = problem(SETTINGS, {"schedule": {"steps": experiences}, "threads": threads})
    click.echo("| experiences | ms each | memory (MiB) |\n|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        work = Training(config, RunFolder(Path(place)), data, teacher, test, quiet=True)
        work.progress = Stretches(work.experiment, stretches)
        work.open(lambda: None)
        work.complete()
        accuracy = work.folder.result["accuracy"]["final"] if work.folder.result else 0.0
    click.echo(f"\n{len(work.metrics.records):,} evaluations; accuracy at the end {accuracy:.2f} %")


if __name__ == "__main__":
    main()
