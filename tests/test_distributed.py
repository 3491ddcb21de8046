"""A run on two processes is the run on one: the same weights, one folder, and a clear end when a process dies."""

import copy
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from lra.benchmarks.errors import UsageError
from lra.benchmarks.runs.processes import Processes
from lra.benchmarks.setup.resolution import configuration
from lra.strategies.distributed import OwnNumbers

SCRIPT = Path(__file__).with_name("two_processes.py")
TORCHRUN = (sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

DIES = """
import os
from avalanche.core import SupervisedPlugin
class Dies(SupervisedPlugin):
    def after_training_exp(self, strategy, **kwargs):
        if os.environ["RANK"] == "1" and strategy.clock.train_exp_counter == 2:
            os._exit(9)
"""


def together(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two processes under torchrun."""
    command = [*TORCHRUN, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=SCRIPT.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What the script of the two processes has for one."""
    return runpy.run_path(str(SCRIPT), run_name="alone")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """The weights that each of two processes ended with, by case."""
    folder = tmp_path_factory.mktemp("shared")
    done = together(SCRIPT, folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_two_halves_of_the_batch_are_the_whole(
    alone: dict[str, Any], shared: list[dict[str, dict[str, torch.Tensor]]], double: None
) -> None:
    """Without BatchNorm; for plain replay and every form of the LRA step."""
    for case in alone["CASES"]:
        # Of a memory, each process draws other latents for its share.
        if case in ("batch statistics", "meta, own shares", "memory generator"):
            continue
        expected = alone["train"](case)
        assert not expected.pop("messages")
        for name, value in expected.items():
            torch.testing.assert_close(shared[0][case][name], value, rtol=1e-9, atol=1e-11, msg=f"{case}: {name}")


def test_gradients_are_averaged_once_unless_the_inner_step_is_joint(
    shared: list[dict[str, dict[str, torch.Tensor]]],
) -> None:
    """Eight of ten student steps replay; generator and running statistics send their own messages."""
    messages = {case: int(weights["messages"]) for case, weights in shared[0].items()}
    assert messages["meta, own shares"] == messages["meta, first order"] - 8 == messages["replay"]
    assert messages["meta"] == messages["replay"] + 2 * 8
    joint, own = (shared[0][case]["student.0.weight"] for case in ("meta", "meta, own shares"))
    assert not torch.allclose(joint, own, rtol=1e-9, atol=1e-11)


def test_processes_stay_alike_to_their_running_statistics(shared: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    for case, weights in shared[0].items():
        for name, value in weights.items():
            assert torch.equal(value, shared[1][case][name]), f"{case}: {name}"


def test_a_run_on_two_processes_fills_one_folder(
    tiny: list[str], tmp_path: Path, lra_bench: Callable[..., Any]
) -> None:
    options = ("run", "--json", "--replay", "reservoir", "--meta", *tiny, "--out")
    done = together("-m", "lra.benchmarks", *options, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    one = json.loads(lra_bench(*options, tmp_path / "one").out)
    assert two["config_hash"] == one["config_hash"]
    for name in ("student_steps", "generator_steps", "images_generated", "teacher_queries"):
        assert two["cost"][name] == one["cost"][name]
    assert {p.name for p in Path(two["run_dir"]).iterdir()} == {p.name for p in Path(one["run_dir"]).iterdir()}


def test_what_a_process_draws_is_told_by_seed_process_and_step(
    make_stream: Any, make_strategy: Any, student: torch.nn.Module
) -> None:
    class Drawn(SupervisedPlugin):
        def __init__(self, wasteful: bool) -> None:
            super().__init__()
            self.batches: list[torch.Tensor] = []
            self.wasteful = wasteful

        def before_training_iteration(self, strategy: Any, **kwargs: object) -> None:
            self.batches.append(strategy.mb_x.clone())

        def after_training_exp(self, strategy: Any, **kwargs: object) -> None:
            if self.wasteful:
                torch.rand(7)

    def batches(seed: int, rank: int, wasteful: bool = False) -> list[torch.Tensor]:
        torch.manual_seed(5)
        drawn = Drawn(wasteful)
        strategy = make_strategy(copy.deepcopy(student), [drawn])
        strategy.plugins.append(OwnNumbers(seed, rank))
        strategy.train(make_stream(length=3))
        return drawn.batches

    first = batches(1, 0)
    assert len({tuple(images.flatten().tolist()) for images in first}) == len(first)
    for again, same in (((1, 0), True), ((1, 0, True), True), ((1, 1), False), ((2, 0), False)):
        assert all(torch.equal(a, b) is same for a, b in zip(first, batches(*again), strict=True))


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_in_one_line(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DIES)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    options = ("run", *tiny, "--plugin", "dying:Dies", "--out", tmp_path / "runs")
    done = together("-m", "lra.benchmarks", *options, PYTHONPATH=path)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("lra-bench:")]
    # torchrun's SIGTERM may come before the survivor finds out by itself.
    assert [line for line in said if not line.startswith("lra-bench: stopping")] == [
        "lra-bench: process 0 of 2: another process of this run has ended; its last message says why; then start "
        "the run again"
    ]
    assert not list((tmp_path / "runs").rglob("result.json"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"set": ["schedule.batch_size=15"]}, "batch_size = 15 cannot be split evenly over 2 processes"),
        ({"replay": "reservoir", "set": ["replay.capacity=7"]}, "replay.capacity = 7 cannot be split evenly"),
        ({"set": ["on_divergence=rollback"]}, "is for a run on one process"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Processes(0, 2).share(configuration(**given))


def test_what_other_processes_saved_is_refused() -> None:
    with pytest.raises(ValueError, match="saved by 2 processes, and these are 1"):
        Processes().own({"others": [{}]})
