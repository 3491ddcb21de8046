"""Answers that need no training come without importing what trains, which takes seconds."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

AWAY = ("mnist", "cifar10", "tiny-imagenet")
"""Data sets that have to be fetched."""

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
    (tmp_path / "good.yaml").write_text("method: [dafl, fast]\n")
    (tmp_path / "tasks.yaml").write_text("method: fats\ntasks: [{name: one, dataset: digits}]\n")
    (tmp_path / "fine.yaml").write_text("method: dfq\ntasks: [{name: one, dataset: digits}]\n")
    done = answers(
        [
            *((0, ["list", what]) for what in ("methods", "replays", "presets", "datasets", "models", "plugins")),
            *((0, ["list", "options", *more]) for more in ([], ["dfq"], ["increment", "--json"], ["--schema"])),
            (2, ["list", "options", "stdent"]),
            (0, ["list", "leaderboard"]),
            (0, ["leaderboard", "check"]),
            (2, ["leaderboard", "check", tmp_path / "own.yaml"]),
            (3, ["leaderboard", "add", tmp_path / "none", "--to", tmp_path / "none.csv"]),
            (2, ["reproduce", "digits/predfkd+memry"]),
            (0, ["reproduce", "digits/predfkd+memory", "--seeds", "7", "--dry-run", "--no-timing"]),
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
            (3, ["show", tmp_path]),
            (3, ["ls", tmp_path]),
            (3, ["export", tmp_path, "--out", tmp_path / "out"]),
            (2, ["sweep", tmp_path / "grid.yaml", "--out", tmp_path / "out"]),
            (2, ["sweep", tmp_path / "grid.yaml", "--out", tmp_path / "out", "--dry-run"]),
            (0, ["sweep", tmp_path / "good.yaml", "--out", tmp_path / "out", "--dry-run", "--no-timing"]),
            (3, ["sweep", tmp_path / "none.yaml", "--out", tmp_path / "out"]),
            (2, ["tasks", tmp_path / "tasks.yaml", "--out", tmp_path / "out"]),
            (2, ["tasks", tmp_path / "own.yaml", "--out", tmp_path / "out"]),
            (3, ["tasks", tmp_path / "none.yaml", "--out", tmp_path / "out"]),
            (0, ["tasks", tmp_path / "fine.yaml", "--out", tmp_path / "out", "--dry-run", "--no-timing"]),
            (0, ["teacher", "train", "--dry-run", "--no-timing", "--set", "teacher.epochs=3"]),
            (2, ["teacher", "train", "--set", "teacher.lr=much"]),
            (2, ["teacher", "train", "--teacher", "resnt18"]),
            (3, ["teacher", "train", "--dataset", f"npz:{tmp_path}/none.npz"]),
            (2, ["teacher", "check", tmp_path / "own.yaml", "--dataset", "minst"]),
            (3, ["teacher", "check", tmp_path / "none.pt"]),
            (2, ["data", "fetch", "minst"]),
            *((3, ["analyse", what, tmp_path]) for what in ("bitflip", "behaviour", "convergence")),
            (2, ["analyse", "bitflip", tmp_path, "--runs", "0"]),
            (2, ["analyse", "behaviour", tmp_path, "--images", "none"]),
            (2, ["analyse", "convergence", tmp_path, "--run", "3"]),
            (2, ["compare"]),
            (3, ["compare", tmp_path]),
        ]
    )
    assert "nayer" in done.stdout
    assert not list(tmp_path.glob("out/*"))


def test_data_that_are_not_here_are_missed_without_what_would_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRA_DATA", str(tmp_path))
    missing = [(3, [*command, "--dataset", name]) for command in (("run",), ("teacher", "train")) for name in AWAY]
    done = answers([*missing, (3, ["increment", "--benchmark", "split-mnist"])])
    assert done.stderr.count(f"is not in {tmp_path}: ") == len(missing) + 1


def test_what_finished_is_shown_again_whatever_it_was(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    grid, tasks = tmp_path / "grid.yaml", tmp_path / "tasks.yaml"
    settings = {key: yaml.safe_load(value) for key, value in (text.split("=") for text in tiny[7::2])}
    common = {"teacher": "mlp", "student": "mlp", "steps": 4, "set": settings}
    grid.write_text(yaml.safe_dump(common | {"seed": [0, 1]}))
    two = [{"name": "low", "dataset": "digits-0-4"}, {"name": "turned", "dataset": "digits-turned"}]
    tasks.write_text(yaml.safe_dump(common | {"tasks": two}))
    others: list[list[object]] = [
        ["tasks", tasks, "--out", tmp_path / "tasks"],
        ["increment", "--strategy", "naive", "--steps", "1", "--model", "mlp", "--out", tmp_path / "runs"],
    ]
    runs = [["run", *tiny, "--steps", "4", "--seed", seed, "--out", tmp_path / "sweep"] for seed in (0, 1)]
    for command in (*runs, *others):
        done = lra_bench(*command)
        assert done.code == 0, done.err
    page = (tmp_path / "tasks" / "report.md").read_text()
    assert "What the old teachers recognise" in page
    (run,) = (file.parent for file in tmp_path.rglob("sweep/*/*/seed-0/result.json"))
    half, bare = (Path(shutil.copytree(run, tmp_path / name / run.parent.name / run.name)) for name in "ab")
    (half / "result.json").unlink()
    (bare / "generator.safetensors").unlink()
    looked = [(3, ["analyse", what, folder]) for what in ("bitflip", "behaviour") for folder in (half, bare)]
    shown = answers(
        [
            *((0, command) for command in others),
            (0, ["sweep", grid, "--out", tmp_path / "sweep"]),
            (0, ["sweep", grid, "--out", tmp_path / "sweep", "--dry-run"]),
            (0, ["resume", tmp_path / "tasks"]),
            (0, ["leaderboard", "add", tmp_path / "sweep", "--to", tmp_path / "rows.csv"]),
            (
                0,
                ["reproduce", "rows/predfkd+reservoir", "--board", tmp_path / "rows.csv", "--out", tmp_path / "sweep"],
            ),
            (0, ["report", tmp_path / "sweep"]),
            (0, ["report", tmp_path / "tasks"]),
            *((0, ["show", tmp_path / place]) for place in ("sweep", "tasks")),
            *((0, ["ls", tmp_path / place]) for place in ("sweep", "tasks", "runs")),
            (3, ["analyse", "convergence", tmp_path / "tasks"]),
            (3, ["export", half]),
            *looked,
        ]
    )
    assert shown.stderr.count("finished before") == 2 * 2 + 2 + 1, (
        "runs of the sweep twice, the tasks twice, the increment"
    )
    assert "2 runs, 0 to do" in shown.stdout
    assert (tmp_path / "tasks" / "report.md").read_text() == page


def test_a_finished_run_is_shown_again_and_said_so(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    given = ["run", *tiny, "--out", tmp_path / "runs", "--json"]
    first = lra_bench(*given)
    assert first.code == 0, first.err
    assert "finished before" not in first.err
    folder = json.loads(first.out)["run_dir"]
    done = answers([(0, given), (0, ["resume", folder, "--json"]), (0, ["show", folder, "--json"])])
    assert done.stdout == 3 * first.out, "standard output is the result alone"
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
        ("lra.benchmarks.setup.resolution.configuration", False),
        ("lra.benchmarks.runs.distillation.data_of", False),
        ("lra.benchmarks.runs.training.prepare", False),
        ("lra.benchmarks.runs.training.Training._close", True),
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

    monkeypatch.setattr("lra.benchmarks.runs.training.CHECKPOINT_SECONDS", 0)
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
