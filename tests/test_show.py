"""``lra-bench show`` and ``ls``: runs looked at again, whatever their kind and however far they are."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lra.benchmarks.files import held, is_held


def test_a_finished_run_is_shown_as_it_ended(lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path) -> None:
    ended = lra_bench("run", *tiny, "--out", tmp_path)
    assert ended.code == 0, ended.err
    (folder,) = (file.parent for file in tmp_path.rglob("result.json"))
    assert lra_bench("show", folder).out == ended.out
    structured = json.loads(lra_bench("show", folder, "--json").out)
    assert structured == json.loads((folder / "result.json").read_text()) | {"run_dir": str(folder)}
    (listed,) = json.loads(lra_bench("ls", tmp_path, "--json").out)["runs"]
    assert listed["state"] == "finished"
    assert listed["accuracy"] == structured["accuracy"]["final"]
    assert listed["student_step"] == 20
    assert listed["bytes"] == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert lra_bench("show", folder, "--json", "--csv").code == 2


def test_every_evaluation_is_a_line_of_csv(
    killed: Callable[..., Path], tiny: list[str], lra_bench: Any, tmp_path: Path
) -> None:
    folder = killed(*tiny, "--out", tmp_path)
    rows = list(csv.DictReader(io.StringIO(lra_bench("show", folder, "--csv").out)))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == len(records) > 1
    for row, record in zip(rows, records, strict=True):
        assert float(row["accuracy"]) == record["accuracy"]
        assert int(row["student_step"]) == record["student_step"]


def test_an_unfinished_run_says_how_far_it_is(
    killed: Callable[..., Path], tiny: list[str], lra_bench: Any, tmp_path: Path
) -> None:
    folder = killed(*tiny, "--out", tmp_path)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    said = lra_bench("show", folder)
    assert said.code == 0, said.err
    assert f"lra-bench resume {folder}" in said.out
    assert json.loads(lra_bench("show", folder, "--json").out)["accuracy"] == last["accuracy"]
    assert "stopped" in lra_bench("ls", tmp_path).out
    with held(folder / ".lock"):
        listed = lra_bench("ls", tmp_path)
        assert "running" in listed.out
        assert "stopped" not in listed.out
        assert "resume" not in lra_bench("show", folder).out, "another process is at it"
    (folder / "metrics.jsonl").unlink()
    assert "stopped" in lra_bench("show", folder).out, "of a run before its first evaluation"


def test_one_damaged_run_does_not_hide_the_others(
    killed: Callable[..., Path], tiny: list[str], lra_bench: Any, tmp_path: Path
) -> None:
    folder = killed(*tiny, "--out", tmp_path)
    other = tmp_path / "other" / "0" / "seed-0"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text("method: dafl\n")
    (folder / "metrics.jsonl").write_text("{\n{}\n")
    states = {Path(run["folder"]): run["state"] for run in json.loads(lra_bench("ls", tmp_path, "--json").out)["runs"]}
    assert states == {folder: "damaged", other: "stopped"}


def test_who_asks_for_a_lock_leaves_nothing_and_keeps_nobody_out(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    assert not is_held(lock)
    assert not lock.exists()
    with held(lock):
        assert is_held(lock)
    assert not is_held(lock)
    with held(lock):
        pass


def test_increments_sweeps_and_tasks_are_shown_again(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    settings = {key: yaml.safe_load(value) for key, value in (text.split("=") for text in tiny[7::2])}
    common = {"teacher": "mlp", "student": "mlp", "steps": 4, "set": settings}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(common | {"seed": [0, 1]}))
    two = [{"name": "low", "dataset": "digits-0-4"}, {"name": "turned", "dataset": "digits-turned"}]
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump(common | {"tasks": two}))
    increments = ["increment", "--strategy", "naive", "--steps", "1", "--model", "mlp", "--out", tmp_path / "runs"]
    for command, place in (
        (increments, None),
        (["tasks", tmp_path / "tasks.yaml", "--out", tmp_path / "tasks"], tmp_path / "tasks"),
        (["sweep", tmp_path / "grid.yaml", "--out", tmp_path / "sweep"], tmp_path / "sweep"),
    ):
        ended = lra_bench(*command)
        assert ended.code == 0, ended.err
        if place is None:
            (place,) = (file.parent for file in (tmp_path / "runs").rglob("result.json"))
        assert lra_bench("show", place).out == ended.out
        assert place.name != "sweep" or json.loads((place / "sweep.json").read_text())["file"] == "grid.yaml"
        assert "finished" in lra_bench("ls", place).out


@pytest.mark.parametrize("command", ["show", "ls"])
def test_where_there_is_no_run_it_is_said(command: str, lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    done = lra_bench(command, tmp_path)
    assert done.code == 3
    assert len(done.err.splitlines()) == 1
