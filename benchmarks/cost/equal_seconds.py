"""How long each cell of a grid takes to train, and the grid in which all take equally long on the same stream.

    python -m lra.benchmarks.cost.equal_seconds benchmarks/studies/retention/phases.yaml --steps 20 \\
        --grid benchmarks/studies/retention/phases-seconds.yaml

In each round every cell trains on a few experiences in turn, on one thread, in CPU time, so that other load on the
machine does not matter: once with `FEW` student steps per experience and once with ``--steps``. All of training is
counted, including drawing and all updates; evaluation, which costs the same everywhere, is left out. Teachers have
random weights: the cost of a step does not depend on what the teacher knows.

An experience of n steps takes u + t·n seconds: "a step" is t and "an experience" u, from medians over rounds. "ratio"
is the time of a cell relative to the first one's, both at ``--steps``. "steps" is the n, rounded, for which a cell
takes as long as the first one at ``--steps``, and "of the budget" the ratio that results. In the grid that is written
all cells go through the same experiences, each with its own number of steps. The figure shows μ in a finished sweep of
GRID itself against the ratios, numbered as by ``compare SWEEP --columns mean --draw ranking``.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from lra.benchmarks.comparison.compare import compare
from lra.benchmarks.comparison.groups import PACE, Group, sweep_record
from lra.benchmarks.cost.overhead import NEVER, Run, advance, evaluation_of, seconds
from lra.benchmarks.files import write_text
from lra.benchmarks.reports.sweep_report import write_frontier
from lra.benchmarks.runs.distillation import DISTILLATION
from lra.benchmarks.runs.kind import Cell
from lra.benchmarks.setup.datasets import data_of
from lra.benchmarks.setup.experiment import prepare
from lra.benchmarks.setup.resolution import read_options
from lra.benchmarks.setup.teachers import stand_in
from lra.benchmarks.sweeps.grid import Planned, plan
from lra.benchmarks.text import markdown_table
from lra.state import seed_everything

FEW = 5
"""Student steps per experience in the shorter runs, which show what an experience costs by itself."""
STEPS = f"set:{PACE}"
"""The key of a cell for its student steps per experience."""


class Cost(NamedTuple):
    """Seconds of an experience: by itself, and of each of its student steps."""

    experience: float
    step: float

    def steps(self, budget: float) -> int:
        """The student steps that ``budget`` seconds pay for, at least one."""
        return max(1, round((budget - self.experience) / self.step))

    def of(self, steps: int) -> float:
        """Seconds of an experience of ``steps`` student steps."""
        return self.experience + self.step * steps


def training(cell: Cell, steps: int, base: Path) -> Run:
    """A run of a cell after its first epoch, when there is something to replay."""
    config = DISTILLATION.of_cell({**cell, STEPS: steps}, base)
    data = data_of(config.data)
    seed_everything(0)
    built = prepare(config, data, stand_in(config, data), None, lambda record: None)
    evaluation_of(built.strategy).every = NEVER
    run = built.stream, built.strategy, None
    advance(run, config.schedule.experiences_per_epoch)
    return run


def measure(planned: Sequence[Planned], steps: int, base: Path, rounds: int, experiences: int) -> list[Cost]:
    """What an experience of each cell costs."""
    runs = [[training(one.cell, number, base) for number in (FEW, steps)] for one in planned]
    times: list[list[list[float]]] = [[[], []] for _ in runs]
    for index in range(rounds):
        # Each goes before each of the others as often as after.
        for pair, taken in list(zip(runs, times, strict=True))[:: 1 if index % 2 else -1]:
            for run, found in zip(pair, taken, strict=True):
                found.append(seconds(partial(advance, run, experiences)) / experiences)
    costs = []
    for few, many in times:
        step = statistics.median((b - a) / (steps - FEW) for a, b in zip(few, many, strict=True))
        costs.append(Cost(statistics.median(many) - step * steps, step))
    return costs


def seedwise(planned: Sequence[Planned]) -> list[tuple[Planned, list[int]]]:
    """The first run of each cell, and the seeds of all its runs."""
    found: dict[str, tuple[Planned, list[int]]] = {}
    for one in planned:
        _, seeds = found.setdefault(repr({**one.cell, "seed": None}), (one, []))
        seeds.append(one.config.seed)
    return list(found.values())


def by_row(costs: Mapping[str, float], sweep: Path, groups: Sequence[Group]) -> dict[str, float]:
    """Costs by label of the group that holds a cell's first run, from ``costs`` by label of that run."""
    runs = sweep_record(sweep / "sweep.json")["runs"]
    folders = {(sweep / run["folder"]).resolve(): costs[run["label"]] for run in runs if run["label"] in costs}
    return {
        group.label: folders[run.folder] for group in groups for run in group.runs.values() if run.folder in folders
    }


def written(cells_with_seeds: Sequence[tuple[Planned, list[int]]], steps: Sequence[int]) -> dict[str, Any]:
    """The grid whose cells have these ``steps`` per experience."""
    cells: list[dict[str, Any]] = []
    for (one, seeds), number in zip(cells_with_seeds, steps, strict=True):
        flags = {key: value for key, value in one.cell.items() if not key.startswith("set:")} | {"seed": seeds}
        settings = {key.removeprefix("set:"): value for key, value in {**one.cell, STEPS: number}.items()}
        cells.append(flags | {"set": {key: value for key, value in settings.items() if key not in flags}})
    first, *others = cells
    same = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    return first | {"also": [{key: value for key, value in other.items() if key not in same} for other in others]}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m lra.benchmarks.cost.equal_seconds", description=__doc__.split("\n")[0]
    )
    command.add_argument("source", type=Path, metavar="GRID", help="of lra-bench sweep; only the first seed is timed")
    command.add_argument("--steps", type=int, default=20, help=f"per experience in the first cell, more than {FEW}")
    command.add_argument("--rounds", type=int, default=7)
    command.add_argument("--experiences", type=int, default=3, help="per round")
    command.add_argument("--grid", type=Path, help="write the grid of equal seconds to this file")
    command.add_argument("--sweep", type=Path, help="of GRID, for the figure")
    command.add_argument("--figure", type=Path, help="draw what the cells of --sweep reached against what they cost")
    return command


def main() -> None:
    """Measure, print, and write the grid."""
    command = parser()
    options = command.parse_args()
    if options.steps <= FEW:
        command.exit(2, f"--steps {options.steps}: more than {FEW} are needed\n")
    if (options.sweep is None) != (options.figure is None):
        command.exit(2, "--sweep and --figure need each other: give both or none\n")
    torch.set_num_threads(1)
    grid = read_options(options.source, "grid")
    cells = seedwise(plan(grid, options.source.parent))
    planned = [one for one, _ in cells]
    costs = measure(planned, options.steps, options.source.parent, options.rounds, options.experiences)
    budget = costs[0].of(options.steps)
    steps = [options.steps, *(cost.steps(budget) for cost in costs[1:])]
    rows = [
        [
            one.label,
            f"{1000 * cost.step:.2f}",
            f"{1000 * cost.experience:.1f}",
            f"{cost.of(options.steps) / budget:.2f}",
            str(number),
            f"{cost.of(number) / budget:.2f}",
        ]
        for one, cost, number in zip(planned, costs, steps, strict=True)
    ]
    if options.figure:
        ratios = {one.label: cost.of(options.steps) / budget for one, cost in zip(planned, costs, strict=True)}
        found = compare([options.sweep], "mean")
        paid = by_row(ratios, options.sweep, found.groups)
        write_frontier(found, paid, "training time, as a multiple of the first cell’s", options.figure)
    print(markdown_table(["cell", "a step, ms", "an experience, ms", "ratio", "steps", "of the budget"], rows))
    if options.grid:
        typed = " ".join(["python -m lra.benchmarks.cost.equal_seconds", *sys.argv[1:]])
        text = yaml.safe_dump(written(cells, steps), sort_keys=False, default_flow_style=None, width=120)
        write_text(options.grid, f"# {options.source.name} at equal seconds, as written by\n#   {typed}\n{text}")


if __name__ == "__main__":
    main()
