"""Grids at equal seconds: how many steps a budget pays, and that nothing else of a cell changes."""

import json
from pathlib import Path

from lra.benchmarks.comparison.groups import Group
from lra.benchmarks.cost.equal_seconds import Cost, by_row, seedwise, written
from lra.benchmarks.records import Run
from lra.benchmarks.sweeps.grid import Planned, plan

GRID = {
    "replay": ["none", "memory"],
    "seed": [3, 5],
    "steps": 40,
    "set": {"meta": [{"enabled": False}, {"enabled": True, "order": 1}], "student.ema": 0.9},
    "also": [{"replay": "ema", "plugin": "memory", "seed": 3, "set": {"plugin.fraction": 0.25}}],
}


def test_a_budget_pays_the_steps_that_take_it() -> None:
    cost = Cost(experience=0.5, step=0.25)
    assert cost.steps(3.0) == 10
    assert cost.of(10) == 3.0
    assert cost.steps(0.1) == 1


def test_the_grid_at_equal_seconds_differs_in_its_pace_alone() -> None:
    before = plan(GRID, Path())
    cells = seedwise(before)
    assert [seeds for _, seeds in cells] == [[3, 5], [3, 5], [3, 5], [3]]
    after = plan(written(cells, [9, 8, 7, 6]), Path())
    assert sorted(rest for rest, _ in map(apart, before)) == sorted(rest for rest, _ in map(apart, after))
    paces = dict(zip((apart(one)[0] for one, _ in cells), [9, 8, 7, 6], strict=True))
    found = dict(map(apart, after))
    assert {rest: found[rest] for rest in paces} == paces
    assert sorted(found.values()) == [6, 7, 7, 8, 8, 9, 9]


def test_costs_find_the_rows_of_a_finished_sweep(tmp_path: Path) -> None:
    """By the runs that their cells became, whatever the rows are called."""
    labels = ["replay=none seed=3", "replay=none seed=5", "replay=memory seed=3"]
    runs = [{"label": label, "folder": f"cell/{i}"} for i, label in enumerate(labels)]
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": runs}))
    made = [Run((tmp_path / run["folder"]).resolve()) for run in runs]
    groups = [Group({}, {3: made[0], 5: made[1]}, "none"), Group({}, {3: made[2]}, "memory")]
    costs = {"replay=none seed=3": 1.0, "replay=memory seed=3": 1.2, "replay=ema seed=3": 1.3}
    assert by_row(costs, tmp_path, groups) == {"none": 1.0, "memory": 1.2}


def apart(one: Planned) -> tuple[str, int]:
    """A run's configuration without its pace, and that."""
    tree = one.config.model_dump()
    pace = tree["schedule"].pop("steps_per_experience")
    return repr(tree), pace
