"""The analyses, end to end on one tiny run."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lra.benchmarks.analyses import teachers
from lra.benchmarks.runs.runner import run
from lra.benchmarks.setup.layers import parse_assignment
from lra.benchmarks.setup.resolution import resolve

pytestmark = pytest.mark.usefixtures("plain_report")

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


KINDS = {
    "predfkd": {"generated"},
    "zskt": {"generated"},
    "gdfq": {"generated"},
    "cmi": {"synthetic"},
    "zskd": {"synthetic"},
    "fast": {"synthetic", "generated"},
    "nayer": {"synthetic", "generated"},
}
"""Of every kind of source a method, and what its runs leave."""


@pytest.fixture(scope="module", params=KINDS)
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A run of a method, and what it leaves."""
    few = {"images": 16, "steps": 2, "warmup": 0} if "synthetic" in KINDS[request.param] else {"warmup": 0}
    few = few if request.param not in ("predfkd", "zskt") else {}
    config = resolve(
        [
            {"method": request.param, "replay": "none", "teacher": "resnet8", "student": "mlp"},
            {"schedule": {"steps": 4}, "synthesis": few},
            *map(parse_assignment, SETTINGS[:6]),
            *([parse_assignment("synthesis.width=8")] if request.param not in ("zskd", "nayer") else []),
        ]
    )
    return run(config, tmp_path_factory.mktemp("runs"), quiet=True).path, KINDS[request.param]


def test_every_kind_of_method_can_be_looked_at(left: tuple[Path, set[str]], lra_bench: Call, tmp_path: Path) -> None:
    folder, kinds = left
    done = lra_bench("analyse", "behaviour", folder, "--out", tmp_path, "--images", 16, "--attack-steps", 1)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "behaviour.json").read_text())["kinds"]
    assert {name for name in found if "attacked" not in name} == {"real"} | kinds
    attacked = {name.removesuffix(", attacked") for name in found if "attacked" in name}
    assert attacked == {"real", "synthetic" if "synthetic" in kinds else "generated"}
    assert all(0 < kind["images"] <= 16 for kind in found.values())
    done = lra_bench(*("analyse", "bitflip", folder, "--out", tmp_path, "--runs", 1, "--iterations", 1, "--images", 8))
    assert done.code == 0, done.err
    assert set(json.loads((tmp_path / "bitflip.json").read_text())["sources"]) == {"real", "noise"} | kinds


@pytest.mark.parametrize("what", ["behaviour", "bitflip"])
@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (["result.json"], "is not finished: continue with lra-bench resume"),
        (["generator.safetensors", "synthetic.safetensors"], "one of which every method leaves"),
        (["config.yaml"], "config.yaml does not exist"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_any_work(
    finished: Path,
    lra_bench: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    lost: list[str],
    said: str,
) -> None:
    def never(folder: Path) -> None:
        raise AssertionError("begun")

    monkeypatch.setattr(teachers, "rebuilt", never)
    copy = shutil.copytree(finished, tmp_path / "copy")
    for name in lost:
        (copy / name).unlink()
    done = lra_bench("analyse", what, copy)
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert said in done.err


def test_a_run_whose_data_are_gone_is_refused_before_any_work(
    finished: Path, lra_bench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "nowhere"))
    copy = shutil.copytree(finished, tmp_path / "copy")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"] |= {"name": "mnist", "size": None}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    done = lra_bench("analyse", "behaviour", copy)
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert "data fetch mnist" in done.err


def test_the_refusal_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        f"sys.argv = ['lra-bench', 'analyse', 'bitflip', {str(tmp_path)!r}]\n"
        "from lra.benchmarks.cli import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert left.code == 3\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
