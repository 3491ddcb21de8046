"""The student's own moving average: what it is, that it changes nothing, where it is shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from short_runs import experiment
from torch import Tensor

from lra.benchmarks.errors import UsageError
from lra.benchmarks.export.exporting import export, load_student
from lra.strategies.checkpoint import capture
from lra.strategies.student_average import StudentAverage

Call = Callable[..., Any]
DECAY = 0.8


class Followed:
    """Averages the student by hand, from its states after each step."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}

    def after_training_iteration(self, strategy: Any, **kwargs: object) -> None:
        state = {name: value.clone() for name, value in strategy.model.state_dict().items()}
        mixed = {
            n: DECAY * self.average[n] + (1 - DECAY) * v
            for n, v in state.items()
            if v.is_floating_point() and self.average
        }
        self.average = state | mixed


@pytest.mark.parametrize(("replay", "meta"), [("none", False), ("memory", True)])
def test_it_is_the_average_of_all_steps_and_changes_nothing(replay: str, meta: bool) -> None:
    plain = experiment("predfkd", replay=replay, meta=meta)
    plain.strategy.train(plain.stream)
    kept = experiment("predfkd", f"student.ema={DECAY}", replay=replay, meta=meta)
    follower = Followed()
    kept.strategy.plugins.insert(0, follower)
    kept.strategy.train(kept.stream)
    for name, value in kept.strategy.model.state_dict().items():
        assert torch.equal(value, plain.strategy.model.state_dict()[name])
    (average,) = (plugin for plugin in kept.strategy.plugins if isinstance(plugin, StudentAverage))
    for name, value in average.average.network.state_dict().items():
        torch.testing.assert_close(value, follower.average[name], rtol=1e-5, atol=1e-6)
    assert any("StudentAverage" in name for name in capture(kept.strategy, kept.stream)["plugins"])


def test_without_decay_it_is_as_good_as_the_student() -> None:
    records: list[dict[str, Any]] = []
    run = experiment("predfkd", "student.ema=0", "evaluation.every=1", keep=records.append)
    run.strategy.train(run.stream)
    assert len(records) == 4
    assert all(record["average"]["accuracy"] == record["accuracy"] for record in records)
    found = run.evaluation.outcome(records)
    assert {k: found["average"][k] for k in ("accuracy", "mean", "max")} == {
        "accuracy": found["accuracy"]["final"],
        "mean": pytest.approx(found["accuracy"]["mean"]),
        "max": found["accuracy"]["max"],
    }


@pytest.mark.parametrize("decay", ["1.5", "-0.1", ".nan"])
def test_another_decay_is_refused_in_one_line(decay: str) -> None:
    with pytest.raises(UsageError, match=r"student\.ema") as refusal:
        experiment("predfkd", f"student.ema={decay}")
    assert "\n" not in str(refusal.value)


def test_it_is_saved_shown_compared_and_exported(tmp_path: Path, lra_bench: Call) -> None:
    tiny = ("--replay", "none", "--steps", 6, "--set", "teacher={network: lenet5-half, epochs: 1}")
    small = (
        "--set",
        "student.network=mlp",
        "--set",
        "synthesis={width: 4, latent: 8}",
        "--set",
        "evaluation.samples=0",
    )
    done = lra_bench("run", *tiny, *small, "--set", "student.ema=0.9", "--out", tmp_path)
    assert done.code == 0, done.err
    assert "average’s accuracy, final" in done.out
    folder = next(tmp_path.rglob("result.json")).parent
    result = json.loads((folder / "result.json").read_text())
    assert result["average"]["accuracy"] == result["average"]["curve"][-1][1]
    assert "average’s accuracy, final" in (folder / "report.html").read_text()
    compared = lra_bench("compare", tmp_path)
    assert "average’s accuracy, final" in compared.out
    files = export(folder, ["safetensors"], tmp_path / "export")
    assert [file.name for file in files] == ["student.safetensors", "average.safetensors", "README.md"]
    own = load_student(folder, "average.safetensors")[1].state_dict()
    student, exported = (load_file(file) for file in files[:2])
    weights = [name for name, value in exported.items() if value.dim() > 1]
    assert weights
    assert all(torch.equal(exported[name], own[f"network.{name}"]) for name in weights)
    assert not any(torch.equal(exported[name], student[name]) for name in weights)
    card = files[2].read_text()
    assert "the moving average of the student" in card
    assert "final accuracy of the student’s average" in card


def test_a_run_without_one_says_nothing_of_it(tmp_path: Path, lra_bench: Call) -> None:
    tiny = ("--replay", "none", "--steps", 4, "--set", "teacher={network: lenet5-half, epochs: 1}")
    done = lra_bench("run", *tiny, "--set", "student.network=mlp", "--set", "synthesis.width=4", "--out", tmp_path)
    assert done.code == 0, done.err
    compared = lra_bench("compare", tmp_path)
    assert "average" not in compared.out + compared.err.lower().replace("average forgetting", "")
    assert not list(tmp_path.rglob("average.safetensors"))
