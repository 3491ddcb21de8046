"""What training costs with the LRA step in each of its forms, against the same replay without it.

    python -m lra.benchmarks.cost.meta_runs --out benchmarks/results/meta-runs.md

Whole training as ``lra-bench run`` does it, including drawing samples and all updates. Evaluation is left out, since it
costs the same with and without the LRA step. In each round every form trains on a few experiences in turn, on one
thread, in CPU time. "ratio" is the time of a form relative to that of plain replay in the same round, as the median
over rounds; "quartiles" are the quartiles of these ratios. Teachers are untrained and no images are needed, because the
cost of a step does not depend on what the teacher knows.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lra.benchmarks.cost.meta_step import machine
from lra.benchmarks.cost.overhead import NEVER, Run, advance, evaluation_of, seconds
from lra.benchmarks.files import write_text
from lra.benchmarks.setup.datasets import Normalisation, data_of
from lra.benchmarks.setup.experiment import prepare
from lra.benchmarks.setup.networks import network_for
from lra.benchmarks.setup.resolution import configuration
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.benchmarks.text import markdown_table
from lra.networks.normalized import Normalized
from lra.state import seed_everything

PLAIN = "no meta"
CELLS: dict[str, tuple[dict[str, Any], int]] = {
    "digits": ({"dataset": "digits"}, 10),
    "digits-bn": ({"dataset": "digits", "student": "lenet5-bn"}, 10),
    "mnist": ({"dataset": "mnist"}, 20),
    "cifar10": ({"dataset": "cifar10"}, 1),
}
"""Flags of the run, whose settings are otherwise those of the fitting scale, and experiences per round."""
FORMS = ["", "alpha_rate=0", "statistics=batch", "every=4", "every=8", "along=momentum", "order=2"]
"""Options of the LRA step; the empty form has its defaults."""


def training(cell: str, replay: str, form: str) -> Run:
    """A run of a cell after its first epoch, when there is something to replay."""
    options = [] if form == PLAIN else [f"meta.{text}" for text in form.split()]
    config = configuration(**CELLS[cell][0], replay=replay, meta=form != PLAIN, set=options)
    data = data_of(config.data)
    seed_everything(0)
    scale = data.published or Normalisation((0.5,) * data.image[0], (0.5,) * data.image[0])
    network = network_for(config.teacher.network, data.classes, data.image, "teacher.network")
    teacher = TrainedTeacher(
        Normalized(network, *vars(scale).values()).eval(), "", scale.mean, scale.std, "", Path(), None
    )
    built = prepare(config, data, teacher, None, lambda record: None)
    evaluation_of(built.strategy).every = NEVER
    run = built.stream, built.strategy, None
    advance(run, config.schedule.experiences_per_epoch)
    return run


def measure(cell: str, replay: str, forms: Sequence[str], rounds: int) -> list[list[str]]:
    """A row for each form: its time per student step, and the ratio of its time to that of plain replay."""
    runs = {form: training(cell, replay, form) for form in [PLAIN, *forms]}
    times: dict[str, list[float]] = {form: [] for form in runs}
    experiences = CELLS[cell][1]
    for index in range(rounds):
        # Each goes before each of the others as often as after.
        for form in runs if index % 2 else reversed(runs):
            times[form].append(seconds(partial(advance, runs[form], experiences)))
    rows = []
    for form, taken in times.items():
        ratios = [own / plain for own, plain in zip(taken, times[PLAIN], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        step = 1000 * statistics.median(taken) / (experiences * runs[form][0].steps)
        name = form if form == PLAIN else f"meta, {form or 'default'}"
        rows.append([name, f"{step:.2f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}"])
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m lra.benchmarks.cost.meta_runs", description=__doc__.split("\n")[0]
    )
    command.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS), metavar="NAME")
    command.add_argument("--forms", nargs="+", default=FORMS, help="each with options of meta.*, without that prefix")
    command.add_argument("--replay", default="memory")
    command.add_argument("--rounds", type=int, default=15)
    command.add_argument("--out", type=Path, help="also write the tables to this file")
    return command


def main() -> None:
    """Measure and print."""
    options = parser().parse_args()
    options.threads, options.device = 1, "cpu"
    torch.set_num_threads(1)
    tables = []
    for cell in options.cells:
        rows = measure(cell, options.replay, options.forms, options.rounds)
        table = markdown_table(["form", "ms per student step", "ratio", "quartiles"], rows)
        tables.append(f"## {cell}, {options.replay}\n\n{table}\n")
        print(tables[-1], flush=True)
    if options.out:
        command = " ".join(["python -m lra.benchmarks.cost.meta_runs", *sys.argv[1:]])
        notes = (__doc__ or "").split("\n\n", 2)[2].replace("\n", " ")
        write_text(
            options.out,
            "\n".join([f"# Training with the LRA step\n\n    {command}\n\n{machine(options)}.\n\n{notes}\n", *tables]),
        )


if __name__ == "__main__":
    main()
