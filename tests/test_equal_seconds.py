"""Grids at equal seconds: how many steps a budget pays, and that nothing else of a cell changes."""

from pathlib import Path

import pytest

from lra.benchmarks.cost.equal_seconds import Cost, written
from lra.benchmarks.sweeps.grid import plan

GRID = {
    "replay": ["none", "memory"],
    "seed": 0,
    "steps": 40,
    "set": {"meta": [{"enabled": False}, {"enabled": True, "order": 1}], "student.ema": 0.9},
    "also": [{"replay": "ema", "plugin": "memory", "set": {"plugin.fraction": 0.25}}],
}


def test_a_budget_pays_the_steps_that_take_it() -> None:
    cost = Cost(experience=0.5, step=0.25)
    assert cost.steps(3.0) == 10
    assert cost.of(10) == 3.0
    assert cost.steps(0.1) == 1


@pytest.mark.parametrize("seeds", [0, [0, 1, 2]])
def test_the_grid_at_equal_seconds_differs_in_its_pace_alone(seeds: int | list[int]) -> None:
    planned = plan(GRID, Path())
    steps = [9, 8, 7, 6]
    found = plan(written(planned, steps, seeds), Path())
    number = len(seeds) if isinstance(seeds, list) else 1
    assert len(found) == number * len(planned) == number * 4
    for one, pace, its in zip(
        planned, steps, [found[i : i + number] for i in range(0, len(found), number)], strict=True
    ):
        for seed, other in enumerate(its):
            was, now = one.config.model_dump(), other.config.model_dump()
            assert now["schedule"].pop("steps_per_experience") == pace
            was["schedule"].pop("steps_per_experience")
            assert now["schedule"].pop("steps") == was["schedule"].pop("steps")
            assert now | {"seed": 0} == was
            assert now["seed"] == seed
