"""``evaluation.keep_best``: the student at its best is kept and marked, and nothing else changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lra.benchmarks.errors import UsageError
from lra.benchmarks.export.exporting import load_student
from lra.benchmarks.runs.training import best_of
from lra.benchmarks.setup.datasets import data_of
from lra.benchmarks.setup.resolution import configuration
from lra.images import unit

BEST = ("--set", "evaluation.keep_best=true", "--set", "student.lr=0.5")


def test_the_best_student_is_kept_and_said_to_be_chosen_on_test_data(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    folders = []
    for more in (BEST, BEST[2:]):
        done = lra_bench("run", *tiny, *more, "--json", "--out", tmp_path)
        assert done.code == 0, done.err
        folders.append(Path(json.loads(done.out)["run_dir"]))
    kept, plain = folders
    assert (kept / "metrics.jsonl").read_bytes() == (plain / "metrics.jsonl").read_bytes()
    assert (kept / "student.safetensors").read_bytes() == (plain / "student.safetensors").read_bytes()
    assert not (plain / "best.safetensors").exists()
    result = json.loads((kept / "result.json").read_text())
    records = [json.loads(line) for line in (kept / "metrics.jsonl").read_text().splitlines()]
    top = max(record["accuracy"] for record in records)
    assert result["best"]["accuracy"] == top == result["accuracy"]["max"]
    assert result["best"]["chosen_on"] == "test data"
    assert "chosen on test data" in lra_bench("show", kept).out

    student = load_student(kept, "best.safetensors")[1]
    test = data_of(configuration(set=["data.size=8"]).data).load("test")
    with torch.no_grad():
        right = (student(unit(test.images)).argmax(dim=1) == test.classes).sum().item()
    assert abs(right - top / 100 * len(test.classes)) <= 1, "but for rounding in batches of another size"

    assert lra_bench("export", kept).code == 0
    assert (kept / "export" / "best.safetensors").is_file()
    assert "chosen on test data" in (kept / "export" / "README.md").read_text()


def test_a_killed_run_keeps_the_same(
    killed: Callable[..., Path], lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    whole = Path(json.loads(lra_bench("run", *tiny, *BEST, "--json", "--out", tmp_path / "a").out)["run_dir"])
    folder = killed(*tiny, *BEST, "--out", tmp_path / "b")
    assert lra_bench("resume", folder).code == 0
    assert (folder / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()


def test_of_equals_the_first_is_the_best() -> None:
    records = [{"accuracy": 10.0}, {"accuracy": 30.0}, {"accuracy": 30.0}, {"accuracy": 20.0}]
    assert best_of(records) is records[1]


def test_without_test_data_there_is_none_to_choose() -> None:
    with pytest.raises(UsageError, match="keep_best chooses on test data"):
        configuration(set=["evaluation.keep_best=true", "data.test=false"])
