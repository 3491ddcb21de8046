"""Before a run: what it would take, from its first steps; and what cannot be done or does not fit, refused at once."""

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from torch import nn

from lra.benchmarks.cli import cli
from lra.benchmarks.errors import LraError, in_one_line
from lra.benchmarks.runs import machine, memory, training, trial
from lra.benchmarks.setup.resolution import configuration
from lra.strategies.methods import METHODS

Bench = Callable[..., Any]

SMALL = {
    "schedule.batch_size": 16,
    "schedule.steps_per_experience": 2,
    "schedule.experiences_per_epoch": 2,
    "evaluation.probe_size": 16,
    "evaluation.samples": 0,
}


def settings(**more: Any) -> tuple[str, ...]:
    return tuple(part for key, value in (SMALL | more).items() for part in ("--set", f"{key}={value}"))


@pytest.fixture
def estimate(lra_bench: Bench, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a dry run of the command says, having written nothing where runs and teachers go."""

    def of(*options: object, command: str = "run") -> dict[str, Any]:
        found = lra_bench(command, *options, "--dry-run", "--json", "--out", tmp_path / "runs")
        assert found.code == 0, found.err
        assert not (tmp_path / "runs").exists()
        return json.loads(found.out)["estimate"]

    return of


@pytest.fixture
def refused(lra_bench: Bench, tmp_path: Path) -> Callable[..., str]:
    """The one line of a run that cannot be, and that its dry run gives too; neither leaves anything."""

    def of(*options: object, code: int = 2, command: str = "run") -> str:
        lines = []
        for dry in ((), ("--dry-run",)):
            found = lra_bench(command, *options, "--out", tmp_path / "runs", *dry)
            assert found.code == code, found
            lines.append(found.err.splitlines()[-1])
        assert lines[0] == lines[1]
        assert not list(tmp_path.rglob("result.json"))
        return lines[0]

    return of


def test_a_dry_run_says_seconds_memory_and_parameters(estimate: Any, tiny: list[str], alone: Path) -> None:
    fresh = ("--set", "teacher.seed=77")
    before = sorted(alone.rglob("*"))
    found = estimate(*tiny, *fresh, "--replay", "generative", "--meta")
    assert sorted(alone.rglob("*")) == before, "no teacher is trained, nor kept in part"
    assert found["seconds"] > 0
    assert found["teacher"] > 0, "it would be trained first"
    assert found["total"] == pytest.approx(found["start_up"] + found["teacher"] + found["seconds"])
    assert found["basis"] == "from 4 timed experiences"
    assert found["peak_memory_mb"] > 10
    assert found["parameters"].keys() == {"teacher", "student", "generator", "memory's generator", "memory's encoder"}
    assert found["threads"] == 1


def test_a_teacher_that_is_there_costs_nothing(estimate: Any, lra_bench: Bench, tiny: list[str]) -> None:
    made = json.loads(lra_bench("teacher", "train", "--set", "data.size=8", *tiny[:2], *tiny[6:], "--json").out)
    assert estimate(*tiny, "--teacher", made["file"])["teacher"] == 0
    assert estimate(*tiny)["teacher"] == 0


def test_a_dry_run_of_a_teachers_training_writes_nothing_and_says_where_it_would_go(
    lra_bench: Bench, alone: Path
) -> None:
    given = ("teacher", "train", "--teacher", "mlp", "--set", "teacher.seed=78", "--set", "teacher.epochs=2")
    before = sorted(alone.rglob("*"))
    told = json.loads(lra_bench(*given, "--dry-run", "--json").out)
    at_once = json.loads(lra_bench(*given, "--dry-run", "--no-timing", "--json").out)
    assert sorted(alone.rglob("*")) == before
    assert told["estimate"]["teacher"] > 0
    assert not told["there"]
    assert at_once["config"]["teacher"] == told["config"]["teacher"]
    assert (told["config"]["teacher"]["epochs"], "estimate" in at_once) == (2, False)
    assert json.loads(lra_bench(*given, "--json").out)["file"] == told["file"] == at_once["file"]
    after = lra_bench(*given, "--dry-run")
    assert f"# there already: {told['file']}" in after.out
    assert yaml.safe_load(after.out) == told["config"], "the estimate is a comment"


LONG = ("run", "quantize", "increment", "sweep", "tasks", "teacher train")
"""Commands that train."""


@pytest.mark.parametrize("name", LONG)
def test_whatever_trains_takes_set_and_says_what_it_would_take(name: str) -> None:
    command: Any = cli
    for word in name.split():
        command = command.commands[word]
    assert {"--set", "--dry-run", "--no-timing", "--json"} <= {text for one in command.params for text in one.opts}


def test_no_timing_tries_nothing(lra_bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(*given: object) -> None:
        raise AssertionError("it was tried")

    monkeypatch.setattr(trial, "trial", never)
    found = lra_bench("run", "--dry-run", "--no-timing", "--out", tmp_path, "--dataset", "cifar10")
    assert found.code == 0
    assert yaml.safe_load(found.out)["data"]["name"] == "cifar10"
    assert "evaluations: " in found.out
    refused = lra_bench("run", "--no-timing", "--out", tmp_path)
    assert (refused.code, "--dry-run" in refused.err) == (2, True)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_tried(method: str, estimate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = "resnet8" if method in ("gdfq", "aeahl-rg") else "lenet5-bn"
    quantized = method == "gdfq"
    more = {"synthesis.steps": 2} if "steps" in METHODS[method].Options.model_fields else {}
    more |= {"synthesis.images": 16} if "images" in METHODS[method].Options.model_fields else {}
    options = settings(**more, **{"teacher.epochs": 1, "data.size": 8})
    monkeypatch.setattr(trial, "LESSONS", 2)
    students = () if quantized else ("--student", "lenet5-bn")
    given = ("--method", method, "--replay", "none", "--teacher", network, *students, "--steps", 12, *options)
    assert estimate(*given, command="quantize" if quantized else "run")["seconds"] > 0


@pytest.mark.parametrize("method", ["fast", "predfkd"])
def test_long_experiences_are_cut_short(method: str, estimate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LIMIT", 0.0)
    options = settings(**{"schedule.steps_per_experience": 10, "teacher.epochs": 1, "data.size": 8})
    found = estimate("--method", method, "--teacher", "lenet5-bn", "--student", "mlp", "--steps", 100, *options)
    assert found["seconds"] > 0
    assert "timed steps of" in found["basis"]


CANNOT = {
    "a method without its BatchNorm": (("--method", "dfq", "--teacher", "mlp"), 2, "BatchNorm"),
    "no data": (("--dataset", "npz:none.npz"), 3, "none.npz"),
    "data that are not fetched": (("--dataset", "cifar10"), 3, "cifar10"),
    "no carried file": (("--set", "carry.generator=none.safetensors"), 3, "none.safetensors"),
    "a plugin that is none": (("--plugin", "avalanche:none"), 2, "none"),
    "a plugin that refuses its options": (("--plugin", "avalanche:ewc", "--set", "plugin.none=1"), 2, "plugin.none"),
    "a network of other images": (("--student", "torchvision:resnet18"), 2, "channels"),
    "a teacher's file that is none": (("--teacher", "none.safetensors"), 3, "none.safetensors"),
    "a device that is not there": (("--device", "cuda:99"), 2, "cuda:99"),
    "a teacher of one image at a time": (("--set", "teacher.batch_size=1", "--set", "teacher.seed=5"), 2, "two images"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_a_dry_run_refuses_what_the_run_would(case: str, refused: Any, tiny: list[str]) -> None:
    options, code, said = CANNOT[case]
    assert said in refused(*tiny, *options, code=code)


def test_a_misfitting_generator_is_refused(refused: Any, tiny: list[str], lra_bench: Bench, tmp_path: Path) -> None:
    done = lra_bench("run", *tiny, "--set", "synthesis.latent=7", "--out", tmp_path / "first", "--json")
    file = Path(json.loads(done.out)["run_dir"]) / "generator.safetensors"
    (tmp_path / "kept.safetensors").write_bytes(file.read_bytes())
    for leftover in (tmp_path / "first").rglob("result.json"):
        leftover.unlink()
    assert "latents" in refused(*tiny, "--set", f"carry.generator={tmp_path / 'kept.safetensors'}")


HUGE = 2 * 10**9


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("schedule.batch_size", ()),
        ("evaluation.probe_size", ()),
        ("synthesis.images", ("--method", "fast", "--teacher", "lenet5-bn")),
        ("synthesis.latent", ()),
        ("synthesis.width", ()),
        ("quantization.noise", ("--set", "quantization={}", "--student", "mlp")),
    ],
)
def test_what_no_machine_has_room_for_is_refused_before_it_is_allocated(
    option: str, options: tuple[str, ...], refused: Any, tiny: list[str]
) -> None:
    said = refused(*tiny, *options, "--set", f"{option}={HUGE}")
    assert option.partition(".")[2] in said
    assert "lower" in said


@pytest.mark.parametrize(("option", "value"), [("schedule.batch_size", 64), ("data.size", 32)])
def test_a_run_is_measured_against_what_is_free(
    option: str, value: int, refused: Any, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 10_000)
    said = refused(*tiny, "--set", f"{option}={value}", "--set", "evaluation.probe_size=1")
    assert "10 KB are free on cpu" in said or "0 MB are free on cpu" in said


def test_the_free_memory_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CONTROL", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10_000}))
    assert machine.available_memory("cpu") == 10_000
    for limit, free in (("max", 10_000), ("8000", 4000), ("90000", 10_000), ("2000", 0)):
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("5000")
        (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000\n")
        assert machine.available_memory("cpu") == free


@pytest.mark.skipif(sys.platform != "linux", reason="where the system can be told")
def test_the_system_refuses_what_is_not_free_while_it_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(memory, "available_memory", lambda device: 2**26)
    with memory.bounded("cpu") as lift:
        with pytest.raises(LraError, match="not enough memory"), in_one_line():
            torch.zeros(2**27)
        lift()
        assert len(torch.zeros(2**27)) == 2**27
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


def test_a_step_larger_than_what_is_free_ends_in_one_line(
    lra_bench: Bench, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the estimate, which is the least there can be, lets it pass."""
    monkeypatch.setattr(memory, "refuse_oversize", lambda *given: None)
    monkeypatch.setattr(training, "refuse_oversize", lambda *given: None)
    monkeypatch.setattr(memory, "available_memory", lambda device: 2**27)
    large = ("--set", "schedule.batch_size=400000")
    for dry in ((), ("--dry-run",)):
        found = lra_bench("run", *tiny, *large, *dry, "--out", tmp_path)
        assert found.code == 1
        assert "there is not enough memory" in found.err
        assert "schedule.batch_size" in found.err


def test_a_watch_lets_pass_what_fits_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 2**27)
    config = configuration()
    with memory.as_far_as_it_fits(config):
        assert nn.Linear(4, 4, dtype=torch.float64).weight.dtype == torch.float64
        generator = torch.Generator().manual_seed(1)
        assert torch.equal(torch.randn(3, generator=generator), torch.randn(3, generator=generator.manual_seed(1)))
        with pytest.raises(memory.UsageError, match="are free"):
            nn.Linear(2**14, 2**14)


@pytest.mark.parametrize(
    ("size", "text"), [(4_000, "0 MB"), (512e6, "512 MB"), (1.94e9, "1.9 GB"), (33e9, "33 GB"), (2e12, "2.0 TB")]
)
def test_bytes_are_said_as_people_say_them(size: float, text: str) -> None:
    assert memory.in_bytes(size) == text


def test_large_pictures_are_tried_at_a_bearable_cost(estimate: Any, tmp_path: Path) -> None:
    """224x224 at batch 4 took 401 million parameters in a generator's first layer."""
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        labels = np.arange(4) % 2
        np.savez(tmp_path / f"{name}.npz", images=rng.integers(0, 255, (4, 224, 224, 3), np.uint8), labels=labels)
    found = estimate(
        *("--dataset", f"npz:{tmp_path / 'train.npz'},{tmp_path / 'test.npz'}", "--teacher", "mlp", "--student", "mlp"),
        *("--method", "predfkd", "--steps", 2),
        *("--set", "schedule.batch_size=2", "--set", "schedule.steps_per_experience=1"),
        *("--set", "teacher.epochs=1", "--set", "teacher.batch_size=2", "--set", "evaluation.probe_size=2"),
    )
    assert found["parameters"]["generator"] < 10_000_000
