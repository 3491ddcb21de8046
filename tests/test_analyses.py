"""The analyses, end to end on one tiny run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lra.benchmarks.runs.runner import run
from lra.benchmarks.setup.layers import parse_assignment
from lra.benchmarks.setup.resolution import resolve

SETTINGS = [
    *("data.size=8", "teacher.epochs=5", "schedule.batch_size=16", "schedule.steps_per_experience=2"),
    *("schedule.experiences_per_epoch=1", "evaluation.probe_size=16", "evaluation.samples=0", "synthesis.bn=0"),
    *("synthesis.images=16", "synthesis.steps=2", "synthesis.warmup=1", "synthesis.width=8"),
    *("synthesis.hard_loss=true", "synthesis.aea={probability: 0.5, width: 4}"),
]

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = [{"method": "aeahl-rg", "replay": "pool", "teacher": "mlp", "student": "mlp", "schedule": {"steps": 4}}]
    config = resolve([*layers, *map(parse_assignment, SETTINGS)])
    return run(config, tmp_path_factory.mktemp("runs"), quiet=True).path


def test_attacks_are_counted_in_the_record_of_the_run(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    counts = rows[-1]["attack"]
    assert json.loads((finished / "result.json").read_text())["attack"] == counts
    assert counts["images"] == counts["queries"] == 4 * 16
    assert 0 < counts["attacked"] < counts["images"]
    assert "perturbation_loss" in rows[-1]["synthesis"]
    assert [len(row["generator_loss"]) for row in rows] == [2 * 2, 2], "the warm-up is in the first"


def test_bit_flips_from_five_sources(finished: Path, lra_bench: Call, tmp_path: Path) -> None:
    done = lra_bench(
        *("analyse", "bitflip", finished, "--out", tmp_path, "--runs", 2, "--iterations", 2, "--images", 16)
    )
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "bitflip.json").read_text())
    assert len(record["sources"]) == 5
    for source in record["sources"].values():
        assert len(source["runs"]) == 2
        for one in source["runs"]:
            assert one["accuracy"][0] == record["accuracy_8_bit"], "every attack starts from the same victim"
            assert one["flips"][-1] >= 2
    assert all(Path(line).stat().st_size > 200 for line in done.out.split())


def test_a_teachers_behaviour(finished: Path, lra_bench: Call, tmp_path: Path) -> None:
    done = lra_bench("analyse", "behaviour", finished, "--out", tmp_path, "--images", 32, "--attack-steps", 3)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "behaviour.json").read_text())
    assert set(record["kinds"]) == {"real", "synthetic", "generated", "real, attacked", "synthetic, attacked"}
    for kind in record["kinds"].values():
        assert sum(kind["classes"]) == pytest.approx(100)
        assert 10 <= kind["confidence"] <= 100
    assert (tmp_path / "behaviour.svg").read_text().startswith("<svg")


def test_an_analysis_of_no_tasks_is_refused_in_one_line(finished: Path, lra_bench: Call) -> None:
    done = lra_bench("analyse", "convergence", finished)
    assert done.code == 3
    assert "tasks.json" in done.err
