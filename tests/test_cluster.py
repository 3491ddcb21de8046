"""Sweeps with Ray: what each machine of a cluster is asked first, and what becomes of runs whose machine is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_sweep import GRID, Inline, Watched, swept
from test_task_runs import SHARED, TWO

from lra.benchmarks.runs.kind import kind_of
from lra.benchmarks.runs.machine import versions
from lra.benchmarks.setup import user_code
from lra.benchmarks.sweeps import cluster
from lra.benchmarks.sweeps.cluster import code_digest, distinct, lend, objection, unlikeness, work_there
from lra.benchmarks.sweeps.engines import Job
from lra.benchmarks.sweeps.grid import plan
from lra.benchmarks.sweeps.sweep import located

HERE = Path(__file__).parent

PACE = """
import os, time
from avalanche.core import SupervisedPlugin
from lra.benchmarks.runs import training

training.CHECKPOINT_SECONDS = 0.0 if "PACE" in os.environ else training.CHECKPOINT_SECONDS

class Slowly(SupervisedPlugin):
    def after_training_iteration(self, strategy, **kwargs):
        time.sleep(float(os.environ.get("PACE", "0")))
    def state_dict(self):
        return {}
    def load_state_dict(self, state):
        pass
"""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Let each test find the code of its own folder."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("own_pace", None)
    user_code.identity.cache_clear()


def script(name: str, *arguments: object, mark: Path) -> subprocess.CompletedProcess[str]:
    """What a program of this folder does with Ray, in a process of its own: here tests may not connect to anything."""
    return subprocess.run(
        [sys.executable, str(HERE / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"MARK": str(mark)},
        timeout=600,
    )


def test_a_lost_machine_loses_nothing(tmp_path: Path) -> None:
    """Its run goes on from its checkpoint on the other one, to the bytes that there are without Ray.

    The teacher that was trained here is lent, the user's own code found where it lies. A folder that the machines do
    not share is refused, and so is a run that asks for more than any of them has.
    """
    pytest.importorskip("ray")
    code, place = tmp_path / "code", tmp_path / "place"
    code.mkdir()
    place.mkdir()
    (code / "own_pace.py").write_text(PACE)
    settings = GRID["set"] | {"code.own_pace": str(code)}
    grid = GRID | {"steps": 100, "replay": "memory", "plugin": "own_pace:Slowly", "set": settings}
    alone = swept(grid, tmp_path / "alone", Inline(), Watched())
    assert [(entry.status, entry.reason) for entry in alone] == [("done", "")] * 2

    done = script("two_machines.py", json.dumps(grid), str(place), mark=tmp_path)
    said = done.stdout.splitlines()
    assert said, done.stderr
    assert json.loads(said[0]) == [["done", ""]] * 2, done.stdout + done.stderr
    results = sorted((place / "out").rglob("result.json"))
    resumed = [file.with_name("log.txt").read_text().count("resumed at experience") for file in results]
    assert sorted(resumed) == [0, 1]
    for file in results:
        for name in ("metrics.jsonl", "student.safetensors"):
            there = file.with_name(name)
            assert there.read_bytes() == (tmp_path / "alone" / there.relative_to(place / "out")).read_bytes()
    assert not list(place.glob("*/cache/teachers/*"))
    assert not (place / "out" / cluster.LENT).exists()
    assert "does not see /proc/self/cwd/out: choose with --out a folder that all machines see" in said[1]
    assert "no machine has 2 CPUs" in said[2]
    assert len(said) == 3


def test_a_lost_worker_loses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    grid = GRID | {"steps": 200, "replay": "memory", "seed": 0}
    found = script("lost_worker.py", json.dumps(grid), str(tmp_path), mark=tmp_path)
    assert found.stdout == "1 [('done', '')]\n", found.stderr


@pytest.mark.parametrize(("address", "code"), [("127.0.0.1:9", 1), ("nowhere", 2)])
def test_an_address_that_does_not_answer(
    tmp_path: Path, lra_bench: Any, monkeypatch: pytest.MonkeyPatch, address: str, code: int
) -> None:
    pytest.importorskip("ray")

    def refuse(place: tuple[str, int], timeout: float) -> None:
        assert place == ("127.0.0.1", 9)
        assert timeout < 10
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("socket.create_connection", refuse)
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID))
    found = lra_bench("sweep", file, "--out", tmp_path / "out", "--engine", "ray", "--address", address)
    assert (found.code, found.out, found.err.count("\n")) == (code, "", 1)
    assert f"--address {address}" in found.err.replace("'", "")


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--dry-run", "--no-timing")])
def test_ray_that_is_not_there(
    tmp_path: Path, lra_bench: Any, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """Said at once, whether the runs are to be done or only told of."""

    def none(name: str) -> str:
        raise cluster.PackageNotFoundError(name)

    monkeypatch.setattr(cluster, "version", none)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    found = lra_bench("sweep", tmp_path / "grid.yaml", "--out", tmp_path / "out", "--engine", "ray", *more)
    assert (found.code, found.out, found.err.count("\n")) == (3, "", 1)
    assert found.err.startswith("lra-bench: --engine ray needs Ray, which is not installed: pip install")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A user's own images, with a teacher to be trained on them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 30)):
        labels = np.arange(count) % 3
        images = (rng.random((count, 8, 8, 1)) * 40 + 80 * labels[:, None, None, None]).astype(np.uint8)
        np.savez(tmp_path / f"own-{split}.npz", images=images, labels=labels)
    return tmp_path / "own-{split}.npz"


@pytest.fixture
def jobs(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What is to be done elsewhere: runs on the user's own images with code of his own, their teacher trained here."""
    monkeypatch.setenv("LRA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_pace.py").write_text(PACE)
    grid = GRID | {"dataset": f"npz:{pictures}", "plugin": "own_pace:Slowly"}
    settings = {key: value for key, value in GRID["set"].items() if key != "data.size"}
    grid["set"] = settings | {"code.own_pace": str(tmp_path / "code")}
    out = tmp_path / "out"
    found = []
    for entry in located(plan(grid), out):
        assert entry.folder is not None, entry.reason
        assert entry.folder.identity is not None
        found.append(Job(entry.config.tree(), str(out), str(entry.folder.path), 1, entry.folder.identity))
    return found


@pytest.fixture
def asked(jobs: list[Job], tmp_path: Path) -> Any:
    """Ask this machine about the jobs, as from another one that differs in what is given."""
    shelf = tmp_path / "out" / cluster.LENT
    lend(jobs, shelf)
    (shelf / "mark").write_text("token")

    def ask(**other: Any) -> str | None:
        given = {"jobs": distinct(jobs), "mark": str(shelf / "mark"), "token": "token"}
        return objection(**given | {"packages": versions(), "code": code_digest()} | other)

    return ask


def test_a_machine_that_has_everything_can_do_the_runs(asked: Any, jobs: list[Job], tmp_path: Path) -> None:
    """Its own cache may be empty: the teacher of all four is lent, once."""
    assert len(distinct(jobs)) == 1
    (lent,) = (tmp_path / "out" / cluster.LENT / "teachers").iterdir()
    (ours,) = (tmp_path / "cache" / "teachers").glob("*.safetensors")
    assert lent.read_bytes() == ours.read_bytes()
    ours.unlink()
    assert asked() is None
    other = replace(jobs[0], identity=jobs[0].identity | {"teacher": "another"})
    assert len(distinct([*jobs, other])) == 2


def test_a_machine_that_lacks_something_says_so(asked: Any, jobs: list[Job], pictures: Path, tmp_path: Path) -> None:
    torch = versions()["torch"]
    built = versions() | {"torch": torch.partition("+")[0] + "+elsewhere"}
    assert asked(packages=built) is None, "how a version was built makes no difference"
    assert "but the sweep was started with 0.1: install that on all" in asked(packages=versions() | {"numpy": "0.1"})
    assert "its code of lra" in asked(code="other")
    assert f"does not see {tmp_path / 'out'}: choose with --out a folder that all machines see" in asked(token="other")

    file = tmp_path / "code" / "own_pace.py"
    file.write_text(PACE + "\n")
    user_code.identity.cache_clear()
    assert "it has other module own_pace where the grid says" in asked()
    file.unlink()
    user_code.identity.cache_clear()
    assert "it has no module own_pace where the grid says" in asked()
    user_code.identity.cache_clear()
    file.write_text(PACE)

    test = Path(str(pictures).replace("{split}", "test"))
    with np.load(test) as archive:
        np.savez(test, images=archive["images"], labels=archive["labels"][::-1])
    assert "it has other test data where the grid says" in asked()
    test.unlink()
    assert str(test) in (gone := asked())
    assert gone.endswith("it must be there on every machine")

    status, said = work_there(jobs[0], str(tmp_path / "elsewhere" / cluster.LENT))
    assert status == "failed", "asked or not, it makes no folder of its own"
    assert f"does not see {tmp_path / 'elsewhere'}" in said
    assert not (tmp_path / "elsewhere").exists()


def test_teachers_of_tasks_are_lent_and_compared_too(tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump(SHARED | {"tasks": TWO}))
    (run,) = plan({"kind": "tasks", "file": str(tmp_path / "tasks.yaml")})
    assert [file.parent.name for file in kind_of(run.config).kept(run.config)] == ["teachers"] * 2
    (increment,) = plan({"kind": "increment"})
    assert list(kind_of(increment.config).kept(increment.config)) == []

    one = {"settings": {}, "teacher": "a", "code": {"own": "1"}}
    there = {"settings": {}, "tasks": {"low": one, "high": one}}
    assert unlikeness(there, there) is None
    assert unlikeness(there, {"tasks": {"low": one, "high": one | {"teacher": "b"}}}) == "other teacher"
    assert (
        unlikeness(one | {"carry": {"generator": "1"}}, one | {"carry": {"generator": "2"}}) == "other file generator"
    )
