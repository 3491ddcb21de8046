"""Answers that need no training come without importing what trains, which takes seconds."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ANSWERS = """
import json, sys
from lra.benchmarks.cli import main
for code, arguments in json.loads(sys.argv[1]):
    sys.argv = ["lra-bench", *arguments]
    try:
        main()
    except SystemExit as left:
        assert (left.code or 0) == code, (arguments, left.code)
    heavy = {"torch", "torchvision", "avalanche", "sklearn", "higher"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""


def answers(commands: Sequence[tuple[int, Sequence[object]]]) -> subprocess.CompletedProcess[str]:
    """Give ``commands`` to one fresh process, which checks their exit codes and what they have imported."""
    told = json.dumps([(code, list(map(str, arguments))) for code, arguments in commands])
    done = subprocess.run([sys.executable, "-c", ANSWERS, told], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_what_needs_no_training_imports_nothing_that_trains(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("method: fast\nreplay: pool\nmeta: true\n")
    (tmp_path / "grid.yaml").write_text("method: [dafl, fats]\n")
    (tmp_path / "tasks.yaml").write_text("method: fats\ntasks: [{name: one, dataset: digits}]\n")
    done = answers(
        [
            *((0, ["list", what]) for what in ("methods", "replays", "presets", "datasets", "models", "plugins")),
            (0, ["teacher", "list"]),
            (0, ["run", "--dry-run", "--no-timing", "--json", "--method", "nayer", "--replay", "generative", "--meta"]),
            (0, ["run", "--dry-run", "--no-timing", "--config", tmp_path / "own.yaml", "--plugin", "avalanche:ewc"]),
            (0, ["quantize", "--dry-run", "--no-timing"]),
            (2, ["run", "--methd", "dafl"]),
            (2, ["run", "--method", "fats"]),
            (2, ["run", "--replay", "bank"]),
            (2, ["run", "--preset", "fats/cifar10"]),
            (2, ["run", "--dataset", "minst"]),
            (2, ["run", "--student", "resnt18"]),
            (2, ["run", "--set", "student.lr=much"]),
            (2, ["run", "--set", "synthesis.jsd=exact"]),
            (2, ["run", "--meta", "--replay", "memory", "--set", "meta.clip=1", "--set", "meta.normalise=true"]),
            (3, ["run", "--teacher", tmp_path / "none.pt"]),
            (3, ["run", "--config", tmp_path / "none.yaml"]),
            (3, ["run", "--dataset", f"npz:{tmp_path}/none.npz"]),
            (2, ["quantize", "--weight-bits", "1"]),
            (2, ["increment", "--strategy", "generatve"]),
            (2, ["increment", "--set", "augment=5"]),
            (3, ["resume", tmp_path]),
            (3, ["report", tmp_path]),
            (3, ["export", tmp_path, "--out", tmp_path / "out"]),
            (2, ["sweep", tmp_path / "grid.yaml", "--out", tmp_path / "out"]),
            (3, ["sweep", tmp_path / "none.yaml", "--out", tmp_path / "out"]),
        ]
    )
    assert "nayer" in done.stdout
    assert not list(tmp_path.glob("out/*"))


def test_a_finished_run_is_shown_again_and_said_so(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    given = ["run", *tiny, "--out", tmp_path / "runs", "--json"]
    first = lra_bench(*given)
    assert first.code == 0, first.err
    assert "finished before" not in first.err
    folder = json.loads(first.out)["run_dir"]
    done = answers([(0, given), (0, ["resume", folder, "--json"])])
    assert done.stdout == 2 * first.out, "standard output is the result alone"
    said = f"lra-bench: finished before, nothing to train: {folder}"
    assert done.stderr.splitlines() == [said, said]
    answers([(0, ["report", folder]), (0, ["compare", tmp_path / "runs"])])


@pytest.mark.parametrize("change", [["--seed", "1"], ["--method", "dafl"], ["--set", "student.lr=0.01"]])
def test_another_run_is_not_taken_for_finished(
    change: list[str], lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    first = lra_bench("run", *tiny, "--out", tmp_path)
    other = lra_bench("run", *tiny, *change, "--out", tmp_path)
    assert (first.code, other.code) == (0, 0)
    assert "finished before" not in other.err
    assert len(list(tmp_path.glob("*/*/*/result.json"))) == 2


@pytest.mark.parametrize(
    ("where", "saved"),
    [
        ("lra.benchmarks.setup.assemble.configuration", False),
        ("lra.benchmarks.runs.runner.data_of", False),
        ("lra.benchmarks.runs.attempt.prepare", False),
        ("lra.benchmarks.runs.attempt.Attempt._close", True),
    ],
)
def test_ctrl_c_promises_what_is_there(
    where: str,
    saved: bool,
    lra_bench: Callable[..., Any],
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lra.benchmarks.runs.attempt.CHECKPOINT_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(where, interrupted)
        done = lra_bench("run", *tiny, "--out", tmp_path)
    assert done.code == 130
    said = done.err.splitlines()[-1]
    assert said.startswith("lra-bench: stopped at once")
    if saved:
        (checkpoint,) = tmp_path.rglob("checkpoint.pt")
        assert f"lra-bench resume {checkpoint.parent}" in said
        assert lra_bench("resume", checkpoint.parent).code == 0
    else:
        assert "resume" not in said
        assert "start" in said
        assert not list(tmp_path.rglob("checkpoint.pt"))
