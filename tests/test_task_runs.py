"""A chain of tasks is a run: its folder is resumed, moved, swept, compared and estimated as that of any other."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from lra.benchmarks.comparison.compare import compare
from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import held
from lra.benchmarks.runs import run_folder
from lra.benchmarks.runs.kind import kind_named
from lra.benchmarks.sweeps.grid import plan
from lra.benchmarks.tasks import kind
from lra.benchmarks.tasks.task_file import read_plan

SHARED = {
    "method": "aeahl-rg",
    "replay": "pool",
    "teacher": "mlp",
    "student": "mlp",
    "steps": 4,
    "set": {
        "data.size": 8,
        "teacher.epochs": 3,
        "schedule": {"batch_size": 16, "steps_per_experience": 2, "experiences_per_epoch": 1},
        "evaluation": {"probe_size": 16, "samples": 0},
        "synthesis": {"bn": 0, "images": 16, "steps": 2, "warmup": 1, "width": 8},
    },
}
TWO = [{"name": "low", "dataset": "digits-0-4"}, {"name": "turned", "dataset": "digits-turned"}]

Call = Callable[..., Any]

# Those of the tasks; a chain has its own.
pytestmark = pytest.mark.usefixtures("plain_reports_of_the_module")


def written(folder: Path, **changes: Any) -> Path:
    """A file of two tasks."""
    file = folder / "tasks.yaml"
    file.write_text(yaml.safe_dump(SHARED | {"tasks": TWO} | changes))
    return file


def chains(out: Path) -> list[Path]:
    """The folders of the chains under ``out``, in the order of its record."""
    return [out / chain["folder"] for chain in json.loads((out / "tasks.json").read_text())["chains"]]


def parts(chain: Path) -> list[Path]:
    """The folders of a chain's finished tasks."""
    rows = [json.loads(line) for line in (chain / "metrics.jsonl").read_text().splitlines()]
    return [chain.parents[2] / row["folder"] for row in rows]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of four chains, of two ways of reuse and two seeds; not to be changed."""
    from lra.benchmarks.tasks.chains import perform

    place = tmp_path_factory.mktemp("four")
    perform(read_plan(written(place, reuse=["anew", "fix"], seed=[0, 1]), {}), place / "out")
    return place / "out"


@pytest.fixture
def own(four: Path, tmp_path: Path) -> Path:
    """A copy of it, elsewhere."""
    return Path(shutil.copytree(four, tmp_path / "moved", symlinks=True))


def same(one: Path, other: Path) -> bool:
    """Whether two runs left the same students."""
    before, after = (load_file(folder / "student.safetensors") for folder in (one, other))
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_chain_has_what_a_run_has(four: Path) -> None:
    for chain in chains(four):
        there = {file.name for file in chain.iterdir()}
        assert {"config.yaml", "identity.json", "env.json", "log.txt", "metrics.jsonl", "result.json"} <= there
        assert {"report.html", "report.md", "generator-loss.svg"} <= there
        assert "checkpoint.pt" not in there
        result = json.loads((chain / "result.json").read_text())
        each = [json.loads((part / "result.json").read_text()) for part in parts(chain)]
        accuracies = [task["accuracy"]["final"] for task in each]
        assert result["accuracy"]["final"] == pytest.approx(sum(accuracies) / 2)
        assert result["later"]["accuracy"] == accuracies[1]
        assert result["cost"]["student_steps"] == 8
        assert result["cost"]["seconds"] == pytest.approx(sum(task["cost"]["seconds"] for task in each))
    assert (chains(four)[0] / "log.txt").read_text().count("student step 4") >= 2, "of each task"


def test_a_chain_that_was_killed_goes_on_from_its_folder_and_ends_the_same(
    lra_bench: Call, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killing(config: Any, out: Path, **options: Any) -> Any:
        if config.data.name == "digits-turned":
            raise Killed
        return run(config, out, **options)

    run = kind.run
    with monkeypatch.context() as patch:
        patch.setattr(kind, "run", killing)
        with pytest.raises(Killed):
            lra_bench("tasks", written(tmp_path), "--reuse", "fix", "--out", tmp_path / "out")
    (chain,) = chains(tmp_path / "out")
    (first,) = parts(chain)
    before = (first / "result.json").stat().st_mtime_ns
    moved = Path(shutil.move(tmp_path / "out", tmp_path / "elsewhere"))
    chain, first = moved / chain.relative_to(tmp_path / "out"), moved / first.relative_to(tmp_path / "out")
    done = lra_bench("resume", chain, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["later"]["accuracy"] is not None
    assert (first / "result.json").stat().st_mtime_ns == before
    straight = next(one for one in chains(four) if one.name == "seed-0" and "fix" in str(one))
    assert all(same(one, other) for one, other in zip(parts(chain), parts(straight), strict=True))
    shown = lra_bench("resume", chain)
    assert "finished before" in shown.err
    assert "| low | fix |" in shown.out


def test_the_configuration_of_a_chain_is_a_file_of_tasks(lra_bench: Call, own: Path) -> None:
    for chain in chains(own):
        done = lra_bench("tasks", chain / "config.yaml", "--out", own)
        assert done.code == 0, done.err
        assert done.err == f"lra-bench: finished before, nothing to train: {chain}\n"
        (other,) = read_plan(chain / "config.yaml", {"steps": 8}, ["student.lr=0.02"]).chains
        assert [(run.student_steps, run.student.lr) for run in other.runs] == [(8, 0.02)] * 2
        assert kind_named("tasks").trusted(other.tree()) == other


def test_chains_are_compared_as_wholes_and_seeds_are_one_row(four: Path, own: Path, lra_bench: Call) -> None:
    found = compare([four], against="reuse=anew")
    assert [(row.group.label, row.seeds) for row in found.rows] == [("reuse=anew", 2), ("reuse=fix", 2)]
    later = [
        json.loads((chain / "result.json").read_text())["later"]["accuracy"]
        for chain in chains(four)
        if "fix" in str(chain)
    ]
    assert found.rows[1].estimates["later_accuracy"].mean == pytest.approx(sum(later) / 2)
    assert found.rows[1].differences["accuracy"].estimate.n == 2
    assert {"early_loss", "late_loss", "later_steps"} <= found.columns.keys()
    (own / "tasks.json").unlink()
    assert [row.seeds for row in compare([own]).rows] == [2, 2], "the tasks are the chains', and no rows of their own"
    for name in ("generator-loss.svg", "convergence.json"):
        (own / name).unlink(missing_ok=True)
    assert lra_bench("analyse", "convergence", own).code == 0
    assert len(json.loads((own / "convergence.json").read_text())["tasks"]) == 3


def test_a_grid_of_tasks_is_swept_compared_and_reported(
    lra_bench: Call, four: Path, tmp_path: Path, forked: object
) -> None:
    written(tmp_path, reuse=["anew", "fix"])
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump({"kind": "tasks", "file": "tasks.yaml", "reuse": ["anew", "fix"]}))
    done = lra_bench("sweep", grid, "--workers", 2, "--threads", 1, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [(run["label"], run["status"]) for run in record["runs"]] == [("reuse=anew", "done"), ("reuse=fix", "done")]
    anew, fix = (tmp_path / "out" / run["folder"] for run in record["runs"])
    assert parts(anew)[0] == parts(fix)[0], "the workers share the first task"
    straight = next(one for one in chains(four) if one.name == "seed-0" and "fix" in str(one))
    assert all(same(one, other) for one, other in zip(parts(fix), parts(straight), strict=True))
    assert "reuse=fix" in lra_bench("compare", tmp_path / "out", "--against", "reuse=anew").out
    assert "reuse=fix" in (tmp_path / "out" / "report.html").read_text()
    again = lra_bench("sweep", grid, "--dry-run", "--out", tmp_path / "out")
    assert "2 runs, 0 to do" in again.out


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"reuse": "fix"}, "file is missing"),
        ({"file": "tasks.yaml"}, "it has 2 chains: name the reuse and seed in the grid, or lists of them"),
        ({"file": "tasks.yaml", "reuse": ["fix", "always"]}, "reuse=always: tasks "),
        ({"file": "tasks.yaml", "reuse": "fix", "taks": 3}, "unknown key 'taks'"),
        ({"file": "none.yaml", "reuse": "fix"}, "does not exist"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(
    lra_bench: Call, tmp_path: Path, grid: dict[str, Any], said: str
) -> None:
    written(tmp_path, reuse=["anew", "fix"])
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"kind": "tasks"} | grid))
    done = lra_bench("sweep", tmp_path / "grid.yaml", "--out", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (3 if "not exist" in said else 2, 1)
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_axes_of_a_grid_lie_over_the_file(tmp_path: Path) -> None:
    written(tmp_path)
    grid = {"kind": "tasks", "file": "tasks.yaml", "carry": [None, "replay", "generator,replay"], "seed": [0, 1]}
    found = [run.config for run in plan(grid | {"set": {"student.lr": 0.02}}, tmp_path)]
    assert [(run.carry, run.seed) for run in found] == [
        (carry, seed) for carry in ((), ("replay",), ("generator", "replay")) for seed in (0, 1)
    ]
    assert {run.student.lr for chain in found for run in chain.runs} == {0.02}
    assert len({chain.provisional for chain in found}) == 3


def test_what_another_process_did_in_the_meantime_is_not_done_again(
    lra_bench: Call, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chains of a sweep share their first task: one of them waits for it, and finds it done."""
    straight = next(one for one in chains(four) if one.name == "seed-0" and "anew" in str(one))
    first = parts(straight)[0]
    copy = tmp_path / "out" / first.relative_to(four)

    @contextmanager
    def meanwhile(lock: Path, *rest: Any, wait: Any = None, **named: Any) -> Iterator[None]:
        if lock.parent == copy:
            assert wait is not None
            shutil.copytree(first, copy, dirs_exist_ok=True)
        with held(lock, *rest, wait=wait, **named):
            yield

    monkeypatch.setattr(run_folder, "held", meanwhile)
    done = lra_bench("tasks", written(tmp_path), "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert (copy / "result.json").read_text() == (first / "result.json").read_text()
    assert parts(chains(tmp_path / "out")[0])[0] == copy


def test_data_that_were_moved_are_named_in_the_configuration(lra_bench: Call, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        labels = np.arange(40) % 4
        images = np.zeros((40, 8, 8), dtype=np.uint8) + 60 * labels[:, None, None].astype(np.uint8)
        np.savez(
            tmp_path / f"{split}.npz", images=images + random.integers(0, 30, images.shape, np.uint8), labels=labels
        )
    tasks = [{"name": "own", "dataset": "npz:train.npz,test.npz"}]
    done = lra_bench("tasks", written(tmp_path, tasks=tasks), "--out", tmp_path / "out")
    assert done.code == 0, done.err
    (chain,) = chains(tmp_path / "out")
    (chain / "result.json").unlink()
    (tmp_path / "there").mkdir()
    for split in ("train", "test"):
        shutil.move(tmp_path / f"{split}.npz", tmp_path / "there" / f"{split}.npz")
    gone = lra_bench("resume", chain)
    assert (gone.code, gone.err.count("\n")) == (3, 1)
    assert f"write its new place into {chain / 'config.yaml'}, for task 'own', and resume again" in gone.err
    file = chain / "config.yaml"
    file.write_text(file.read_text().replace(f"{tmp_path}/", f"{tmp_path}/there/"))
    done = lra_bench("resume", chain)
    assert done.code == 0, done.err
    assert chains(tmp_path / "out") == [chain]
    assert f"npz:{tmp_path}/there/" in (parts(chain)[0] / "config.yaml").read_text()


def test_an_estimate_begins_each_task_with_what_the_last_one_left(
    lra_bench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lra.benchmarks.runs import trial

    seen, tried = [], trial.trial

    def watched(config: Any, *rest: Any, **named: Any) -> Any:
        seen.append((config.synthesis["reuse"], config.carry))
        return tried(config, *rest, **named)

    monkeypatch.setattr(trial, "trial", watched)
    file = written(tmp_path, reuse=["anew", "fix"], carry="replay")
    done = lra_bench("tasks", file, "--dry-run", "--json", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert not (tmp_path / "out").exists()
    rows = json.loads(done.out)["runs"]
    assert [row["basis"] == "the same run as above" for row in rows] == [False, False, True, False]
    assert all(row["seconds"] is not None and row["status"] == "to do" for row in rows)
    assert [reuse for reuse, _ in seen] == ["anew", "anew", "anew", "fix"]
    assert [bool(carry.generator) for _, carry in seen] == [False, False, False, True]
    assert [bool(carry.replay) for _, carry in seen] == [False, True, False, True]


def test_which_tasks_there_are_is_told_at_once(
    own: Path, lra_bench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "trials", None)
    unfinished = chains(own)[-1]
    (unfinished / "result.json").unlink()
    rows = (unfinished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (unfinished / "metrics.jsonl").write_text(rows[0])
    file = written(tmp_path, reuse=["anew", "fix"], seed=[0, 1, 2])
    given = ("tasks", file, "--out", own, "--dry-run", "--no-timing")
    told = json.loads(lra_bench(*given, "--json").out)["runs"]
    assert [row["status"] for row in told if "seed 2" not in row["label"]] == ["finished"] * 7 + ["to do"]
    assert {row["status"] for row in told if "seed 2" in row["label"]} == {"to do"}
    assert lra_bench(*given).out.endswith("12 runs, 5 to do\n")


def test_an_estimate_says_what_a_task_could_not_begin_with(lra_bench: Call, tmp_path: Path) -> None:
    small = SHARED["set"] | {"synthesis": {"images": 16, "steps": 1}}  # type: ignore[operator]
    file = written(tmp_path, method="zskd", carry="generator", set=small)
    done = lra_bench("tasks", file, "--dry-run", "--json", "--out", tmp_path / "out")
    first, second = json.loads(done.out)["runs"]
    assert (first["seconds"] is None, second["seconds"]) == (False, None)
    assert second["basis"].startswith("task 'low' left no generator.safetensors")


@pytest.mark.parametrize(
    "tree",
    [
        {"kind": "tasks"},
        {"kind": "tasks", "tasks": 3},
        {"kind": "tasks", "reuse": "fix", "carry": [], "seed": 0, "tasks": []},
        {"kind": "tasks", "reuse": "fix", "carry": ["all"], "seed": 0, "tasks": [{"name": "a", "set": {}}]},
        {"kind": "tasks", "reuse": "fix", "carry": [], "seed": 0, "tasks": [{"name": "a", "set": {"method": "none"}}]},
    ],
    ids=str,
)
def test_a_configuration_that_is_none_is_refused_in_one_line(lra_bench: Call, own: Path, tree: dict[str, Any]) -> None:
    chain = chains(own)[0]
    (chain / "config.yaml").write_text(yaml.safe_dump(tree))
    for command in (("resume", chain), ("tasks", chain / "config.yaml", "--out", own)):
        done = lra_bench(*command)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
    with pytest.raises(UsageError):
        kind_named("tasks").stored(chain)


def test_what_stops_a_task_stops_its_chain_which_is_gone_on_with(
    lra_bench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's own folder is not what is to be resumed."""
    from lra.benchmarks.errors import Interrupted
    from lra.benchmarks.runs.training import Training

    def stopped(work: Training) -> None:
        raise Interrupted(2, f"continue with lra-bench resume {work.folder.resumed}")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "complete", stopped)
        done = lra_bench("tasks", written(tmp_path), "--out", tmp_path / "out")
        assert done.code == 130
        last = f"lra-bench: task 'low' stopped; continue with lra-bench resume {tmp_path / 'out'}"
        assert done.err.splitlines()[-1] == last
        (chain,) = chains(tmp_path / "out")
        done = lra_bench("resume", chain)
        assert (done.code, done.err.splitlines()[-1]) == (130, f"{last[: last.index('resume')]}resume {chain}")
    record = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert [task["status"] for task in record["chains"][0]["tasks"]] == ["stopped", "waiting"]
