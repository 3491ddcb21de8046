from pathlib import Path

import numpy as np
import pytest

from lra.benchmarks.cost import photographs
from lra.benchmarks.cost.timed_run import PARTS, BareLoop, Stopwatch, TimedRun
from lra.benchmarks.setup.resolution import read_options
from lra.benchmarks.sweeps.grid import plan

STUDY = Path(__file__).parents[1] / "benchmarks" / "studies" / "photographs"


class Work:
    """Spends time on a clock of its own; `outer` spends some before, in and after what it calls."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def inner(self):
        self.now += 2

    def outer(self):
        self.now += 1
        self.inner()
        self.now += 4


def watched(outer, inner):
    work = Work()
    watch = Stopwatch(work.clock)
    watch.watch(work, "inner", inner)
    watch.watch(work, "outer", outer)
    work.now += 100
    work.outer()
    work.inner()
    return dict(watch.spent)


def test_nested_time_counts_for_the_inner_part():
    assert watched("student", "labels") == {"student": 5, "labels": 4}


def test_what_happens_in_synthesis_is_synthesis():
    assert watched("synthesis", "drawing") == {"synthesis": 7, "drawing": 2}


def test_time_is_counted_where_work_fails():
    work = Work()
    work.fail = lambda: work.inner() or 1 / 0
    watch = Stopwatch(work.clock)
    watch.watch(work, "fail", "labels")
    with pytest.raises(ZeroDivisionError):
        work.fail()
    work.now += 10
    assert dict(watch.spent) == {"labels": 2}


def test_a_step_has_its_share_of_what_happens_once_an_experience():
    parts = dict.fromkeys(PARTS, 0.0) | {"synthesis": 40.0, "student": 8.0, "drawing": 2.0}
    found = photographs.of_a_step(
        {"seconds": 51.0, "steps": 4, "parts": parts}, evaluation=20.0, steps=400, between=800
    )
    assert found == dict.fromkeys(PARTS, 0.0) | {
        "synthesis": 0.1,
        "student": 2.0,
        "drawing": 0.5,
        "evaluation": 0.025,
        "rest": 0.25,
    }


@pytest.fixture(scope="module")
def run():
    tree = {
        "method": "predfkd",
        "replay": {"name": "memory", "period": 1},
        "teacher": {"network": "resnet8"},
        "student": {"network": "resnet8"},
        "synthesis": {"width": 4, "latent": 8},
        "schedule": {"batch_size": 8, "steps_per_experience": 2, "experiences_per_epoch": 1, "steps": 10**9},
        "evaluation": {"every": 10**9},
    }
    return TimedRun(tree, tests=16)


def test_parts_are_parts_of_the_whole(run):
    found = run.train(2)
    assert found["steps"] == 4
    assert all(found["parts"][part] > 0 for part in ("drawing", "labels", "student", "synthesis"))
    assert sum(found["parts"].values()) <= found["seconds"]


def test_operations_grow_with_the_experiences(run):
    assert run.flops(2)["flops"] == 2 * run.flops(1)["flops"] > 0


def test_the_bare_loop_learns_from_as_many_images(run):
    run.train(1)
    assert run.plain(1)["steps"] == 1
    assert isinstance(run.bare, BareLoop)
    assert (run.bare.new, len(run.bare.images)) == (8, 9)  # an eighth of the batch is replayed


@pytest.mark.parametrize(
    ("grid", "runs", "budgets"),
    [
        ("default", 3, {(3_000, 128)}),
        ("methods", 7, {(6_000, 128)}),
        ("retention", 12, {(6_000, 128)}),
        ("seeds", 8, {(6_000, 128)}),
        ("published", 6, {(80_000, 256), (120_000, 512)}),
    ],
)
def test_the_grids_of_photographs_have_the_budgets_that_they_name(grid, runs, budgets, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        images = np.zeros((20, 32, 32, 3), np.uint8)
        np.savez(tmp_path / "data" / f"cifar10-{split}.npz", images=images, labels=np.arange(20) % 10)
    monkeypatch.chdir(tmp_path)
    planned = [run.config for run in plan(read_options(STUDY / f"{grid}.yaml", "grid"), STUDY)]
    assert len(planned) == runs
    assert {(config.student_steps, config.schedule.batch_size) for config in planned} == budgets
    assert all(config.evaluations >= 20 for config in planned)
