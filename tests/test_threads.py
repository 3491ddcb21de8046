"""How many threads a command takes, by the size of its networks and no part of a name; and that it keeps its memory."""

import ctypes
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from lra.benchmarks.runs import machine
from lra.benchmarks.runs.machine import Stopwatch, processors
from lra.benchmarks.setup.datasets import data_set
from lra.benchmarks.setup.networks import sizes
from lra.benchmarks.setup.resolution import configuration
from lra.benchmarks.sweeps.grid import plan
from lra.networks.footprint import footprint, named_footprint
from lra.strategies.methods import METHODS


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of many processors, whatever this one is."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "processors", lambda: 7)
    yield
    torch.set_num_threads(1)


def _chosen(**given: Any) -> int:
    config = configuration(**given)
    return machine.threads_of(config, data_set(config.data.name, config.data.size))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_on_digits_takes_one_thread_on_any_machine(method: str) -> None:
    assert _chosen(method=method) == 1


def test_large_networks_take_every_processor_and_what_is_told_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"dataset": "cifar10", "teacher": "resnet34", "student": "resnet18"}
    assert _chosen(**large) == 7
    assert _chosen(**large, threads=3) == 3
    assert _chosen(**large, device="cuda") == 1, "where nothing large is computed here"
    assert _chosen(student="resnet18", teacher="resnet34") == 7, "on digits too"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert _chosen(**large) == 2


def test_the_largest_of_both_networks_counts() -> None:
    assert _chosen(student="lenet5", teacher="resnet34", dataset="cifar10") == 7


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "torchvision:mobilenet_v3_small"])
def test_a_footprint_is_that_of_the_built_network_without_building_it(name: str) -> None:
    image = (3, 32, 32)
    told = named_footprint(name, 10, image)
    from lra.networks import build

    assert told == footprint(build(name, 10, image), image)


def test_a_footprint_counts_multiplications_and_what_is_kept() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    found = footprint(network, (1, 8, 8))
    assert found.parameters == 40 + 2570
    assert found.weights == 4 * found.parameters
    assert found.work == 64 * 4 * 9 + 2560
    # The input of the convolution, and the map after the ReLU, which the linear layer keeps too.
    assert found.kept == 4 * (64 + 256)


def test_a_footprint_leaves_no_trace() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 2)).eval()
    before, state = torch.random.get_rng_state(), {k: v.clone() for k, v in network.state_dict().items()}
    footprint(network, (1, 8, 8))
    named_footprint("resnet8", 10, (1, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not network.training


def test_a_run_says_its_threads_and_is_named_without_them(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    first = json.loads(lra_bench("run", *tiny, "--out", tmp_path, "--json").out)
    folder = Path(first["run_dir"])
    assert yaml.safe_load((folder / "config.yaml").read_text())["threads"] == 1
    assert json.loads((folder / "env.json").read_text())["threads"] == 1
    again = json.loads(lra_bench("run", *tiny, "--out", tmp_path, "--threads", 2, "--json").out)
    assert again["run_dir"] == first["run_dir"]


def test_runs_of_a_sweep_take_what_they_would_alone() -> None:
    from lra.benchmarks.commands.sweep import at_a_time, settled

    planned = plan({"dataset": "cifar10", "teacher": "lenet5", "student": ["lenet5", "resnet18"], "steps": 20})
    assert [settled(run, None).config.threads for run in planned] == [1, 7]
    assert [settled(run, 2).config.threads for run in planned] == [2, 2]
    assert at_a_time([settled(run, 10**6) for run in planned]) == 1


def test_an_increment_and_a_teacher_say_their_threads(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    options = ("increment", "--strategy", "naive", "--steps", 1, "--experiences", 2, "--model", "lenet5", "--json")
    found = json.loads(lra_bench(*options, "--out", tmp_path / "a").out)
    told = json.loads(lra_bench(*options, "--out", tmp_path / "b", "--threads", 2).out)
    assert (found["config"]["threads"], told["config"]["threads"]) == (1, 2)
    assert Path(found["run_dir"]).relative_to(tmp_path / "a") == Path(told["run_dir"]).relative_to(tmp_path / "b")
    trained = lra_bench("teacher", "train", "--teacher", "mlp", "--set", "teacher.epochs=3", "--threads", 2, "--json")
    assert json.loads(trained.out)["threads"] == 2


def test_the_processors_of_a_container_are_those_it_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CONTROL", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda who: set(range(8)), raising=False)
    assert processors() == 8
    for text, expected in (("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("damaged", 8)):
        (tmp_path / "cpu.max").write_text(text)
        assert processors() == expected


def test_a_teacher_file_counts_by_the_network_it_names(tmp_path: Path, lra_bench: Callable[..., Any]) -> None:
    made = lra_bench("teacher", "train", "--teacher", "mlp", "--set", "teacher.epochs=3", "--json")
    config = configuration(teacher=json.loads(made.out)["file"], student="lenet5")
    data = data_set("digits", None)
    assert sizes(config, data)["teacher"] == named_footprint("mlp", 10, data.image, training=False)


def test_a_stopwatch_goes_on_from_where_another_process_stopped() -> None:
    first, second = Stopwatch(), Stopwatch()
    sum(range(100_000))
    read = first.read()
    assert read["seconds"] >= 0 < read["processor_seconds"]
    second.take_up({"seconds": 10.0, "processor_seconds": 20.0, "records": 3})
    second.start()
    later = second.read()
    assert later["seconds"] >= 10.0
    assert later["processor_seconds"] >= 20.0


AGAIN = """
import resource
import torch
from lra.benchmarks.runs.machine import compute_with

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

compute_with(1)
before = faults()
for _ in range(40):
    torch.ones(2**23)
print(faults() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_the_memory_of_freed_tensors_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40 * 2**25 // resource.getpagesize() / 2, "pages that the system had to clear"
