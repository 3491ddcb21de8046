"""Tasks in sequence, end to end on tiny runs: what is carried, what is kept when one fails, what is reported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lra.benchmarks.errors import LraError
from lra.benchmarks.setup.reuse import load_generator
from lra.benchmarks.tasks import kind, task_report
from lra.benchmarks.tasks.task_file import plan
from lra.closed_loop import ClosedLoop

SETTINGS = {
    "data.size": 8,
    "teacher.epochs": 3,
    "schedule.batch_size": 16,
    "schedule.steps_per_experience": 2,
    "schedule.experiences_per_epoch": 1,
    "evaluation.probe_size": 16,
    "evaluation.samples": 0,
}
REUSABLE = {
    "synthesis.bn": 0,
    "synthesis.images": 16,
    "synthesis.steps": 2,
    "synthesis.warmup": 1,
    "synthesis.width": 8,
}
TWO = [{"name": "low", "dataset": "digits-0-4"}, {"name": "turned", "dataset": "digits-turned"}]

Call = Callable[..., Any]

# Those of the tasks; a chain has its own.
pytestmark = pytest.mark.usefixtures("plain_reports_of_the_module")


def tree(**changes: Any) -> dict[str, Any]:
    shared = {"method": "aeahl-rg", "replay": "pool", "teacher": "mlp", "student": "mlp", "steps": 4, "tasks": TWO}
    settings = SETTINGS | (REUSABLE if changes.get("method", "aeahl-rg") == "aeahl-rg" else {})
    return shared | {"set": settings | changes.pop("set", {})} | changes


@pytest.fixture
def tasks(lra_bench: Call, tmp_path: Path) -> Call:
    """Call ``lra-bench tasks`` on a tree."""

    def call(content: Any, *arguments: object) -> Any:
        file = tmp_path / "tasks.yaml"
        file.write_text(yaml.safe_dump(content))
        return lra_bench("tasks", file, "--out", tmp_path / "out", *arguments)

    return call


def folders(out: Path) -> list[list[Path]]:
    record = json.loads((out / "tasks.json").read_text())
    return [[out / task["folder"] for task in chain["tasks"]] for chain in record["chains"]]


def test_a_chain_fixes_what_it_reuses_and_shares_the_first_task(tasks: Call, tmp_path: Path) -> None:
    done = tasks(tree(reuse=["anew", "fix"]), "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert [(chain["reuse"], len(chain["tasks"])) for chain in record["chains"]] == [("anew", 2), ("fix", 2)]
    anew, fix = folders(tmp_path / "out")
    assert anew[0] == fix[0], "nothing is carried into the first task"
    assert anew[1] != fix[1]
    before, after, fresh = (load_file(f / "generator.safetensors") for f in (fix[0], fix[1], anew[1]))
    learnt = [n for n in before if n.startswith("decoder") and n.endswith("weight")]
    assert all(torch.equal(before[n], after[n]) for n in learnt), "fix leaves the decoder's weights as they were"
    assert not any(torch.equal(before[n], fresh[n]) for n in learnt)
    rows = {(row["task"], row["reuse"]): row for row in record["runs"]}
    assert (
        rows["turned", "fix"]["generator loss, first 100 steps"]
        != rows["turned", "anew"]["generator loss, first 100 steps"]
    )
    assert {r["of"] for chain in record["recognition"]["fix"] for r in chain} == {0, 1}
    for name in ("report.md", "generator-loss.svg", "agreement.png"):
        assert (tmp_path / "out" / name).stat().st_size > 500
    _, notes = load_generator(fix[0] / "generator.safetensors")
    assert (notes.method, notes.dataset, notes.image, notes.latent) == ("aeahl-rg", "digits-0-4", (1, 8, 8), 128)
    assert len(notes.mean) == len(notes.std) == 1


@pytest.mark.parametrize("replay", ["reservoir", "generative"])
def test_any_method_carries_its_generator_and_its_replay(tasks: Call, tmp_path: Path, replay: str) -> None:
    content = tree(method="dafl", replay=replay, carry=["generator", "replay"], set={"synthesis.width": 8})
    done = tasks(content, "--json")
    assert done.code == 0, done.err
    first, second = folders(tmp_path / "out")[0]
    config = yaml.safe_load((second / "config.yaml").read_text())
    assert (second / config["carry"]["generator"]).resolve() == first / "generator.safetensors"
    assert (second / config["carry"]["replay"]).resolve() == first / "replay.pt"
    state = torch.load(second / "replay.pt", weights_only=True)["state"]
    assert state["completed"] == 4, "two experiences of each task"
    if replay == "reservoir":
        assert state["buffer"]["logits"].shape[1] == 10, "the new teacher answers for the old images"


def test_tasks_may_have_images_of_different_sizes(tasks: Call, tmp_path: Path) -> None:
    larger = {"name": "large", "dataset": "digits", "set": {"data.size": 16}}
    content = tree(method="dafl", replay="memory", tasks=[*TWO, larger], set={"synthesis.width": 8})
    done = tasks(content)
    assert done.code == 0, done.err
    recognised = json.loads((tmp_path / "out" / "report.json").read_text())["recognition"]["anew"][0]
    assert [(found["after"], found["of"]) for found in recognised] == [(0, 0), (1, 0), (1, 1), (2, 2)]


def test_a_task_that_fails_leaves_the_others_and_is_taken_up_again(
    tasks: Call, lra_bench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, broken = kind.run, ["digits-turned"]

    def failing(config: Any, out: Path, **options: Any) -> Any:
        if config.data.name in broken:
            raise LraError("the student has diverged")
        return run(config, out, **options)

    def statuses() -> list[str]:
        chains = json.loads((tmp_path / "out" / "tasks.json").read_text())["chains"]
        return [task["status"] for task in chains[0]["tasks"]]

    monkeypatch.setattr(kind, "run", failing)
    done = tasks(tree(reuse="common", tasks=[*TWO, {"name": "high", "dataset": "digits-5-9"}]))
    assert done.code == 1
    for word in ("'turned'", "diverged", f"resume {tmp_path / 'out'}"):
        assert word in done.err
    assert "task 'turned' failed: the student has diverged" in (tmp_path / "out" / "log.txt").read_text()
    assert statuses() == ["done", "failed", "waiting"], "what would have come of the failed task is not done"
    finished = folders(tmp_path / "out")[0][0] / "result.json"
    before = finished.stat().st_mtime_ns
    broken[:] = ["digits-5-9"]
    assert lra_bench("resume", tmp_path / "out").code == 1
    assert statuses() == ["done", "done", "failed"], "the failed task is gone on with, and the next one fails"
    assert finished.stat().st_mtime_ns == before, "a finished task is not repeated"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, "list of tasks is empty"),
        ({"tasks": None}, "list of tasks is empty"),
        ({"tasks": ["digits"]}, "task 1 is 'digits'"),
        ({"tasks": [{"data": "digits"}]}, "unknown key 'data'; did you mean 'dataset'"),
        ({"tasks": [TWO[0], TWO[0]]}, "two tasks are called 'low'"),
        ({"reuse": "always"}, "reuse = 'always'"),
        ({"carry": "everything"}, "carry = 'everything'"),
        ({"seed": "zero"}, "seed = 'zero'"),
        ({"seed": [0, -1]}, "seed = -1"),
        ({"seed": True}, "seed = True"),
        ({"tasks": [*TWO, {"dataset": "digit"}]}, "task '3': unknown data set 'digit'; did you mean 'digits'"),
        ({"method": "dafl", "reuse": "fix"}, "unknown option 'synthesis.reuse': it is of aeahl-rg;"),
        ({"taks": []}, "unknown key 'taks'; did you mean 'tasks'"),
    ],
)
def test_bad_files_are_refused_in_one_line(tasks: Call, changes: dict[str, Any], message: str) -> None:
    done = tasks(tree(**changes))
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_what_a_later_task_lacks_is_found_before_the_first(tasks: Call, tmp_path: Path) -> None:
    gone = {"name": "gone", "dataset": f"npz:{tmp_path}/none.npz"}
    done = tasks(tree(tasks=[*TWO, gone]))
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "task 'gone': data file" in done.err
    done = tasks(tree(tasks=[*TWO, {"name": "gone", "dataset": "cifar10"}]))
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "lra-bench data fetch cifar10" in done.err
    assert not (tmp_path / "out").exists()


def test_a_resumed_task_may_roll_back(tasks: Call, tmp_path: Path, lra_bench: Call) -> None:
    task = {"name": "wild", "dataset": "digits-0-4", "set": {"student.lr": 1e30}}
    done = tasks(tree(method="dafl", replay="none", tasks=[task], set={"synthesis.width": 8}))
    assert "--on-divergence rollback" in done.err
    done = lra_bench("resume", tmp_path / "out", "--on-divergence", "rollback")
    assert (done.code, "after 3 rollbacks" in done.err) == (1, True), done


def test_the_plan_gives_every_task_its_chains_seed_and_its_own_settings(tmp_path: Path) -> None:
    content = tree(seed=[3, 4], tasks=[{"dataset": "digits-0-4", "set": {"student.lr": 0.02}}, {"dataset": "digits"}])
    found = plan(content).chains
    assert [(chain.reuse, chain.seed, chain.names) for chain in found] == [
        ("anew", 3, ("1", "2")),
        ("anew", 4, ("1", "2")),
    ]
    low = found[1].at(0)
    assert (low.seed, low.data.name, low.student.lr) == (4, "digits-0-4", 0.02)
    assert found[0].at(1).student.lr != 0.02
    (chain,) = plan(content | {"reuse": "fix", "seed": 0}).chains
    (tmp_path / "generator.safetensors").touch()
    later = chain.at(1, tmp_path)
    assert (chain.at(0).synthesis["reuse"], later.synthesis["reuse"]) == ("anew", "fix")
    assert later.carry is not None
    assert later.carry.generator == str(tmp_path / "generator.safetensors")


def test_a_closed_loop_opens_each_item_when_its_turn_comes_and_goes_on_where_it_stopped() -> None:
    class Doubling(ClosedLoop[int]):
        state = 1

        def open(self) -> int:
            return self.state

    loop, rests = Doubling(4), []
    loop.at_rest = lambda: rests.append(loop.position)
    seen = []
    for item in loop:
        seen.append(item)
        loop.state *= 2
        if len(seen) == 2:
            break
    assert (seen, loop.position) == ([1, 2], 1), "the second item was not completed"
    seen += list(loop)
    assert seen == [1, 2, 4, 4, 4]
    assert rests == [1, 2, 3, 4]


RUN = [
    *("run", "--method", "aeahl-rg", "--replay", "pool", "--teacher", "mlp", "--student", "mlp", "--steps", "4"),
    *(part for key, value in (SETTINGS | REUSABLE).items() for part in ("--set", f"{key}={value}")),
]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator of a finished run."""
    from lra.benchmarks.runs.runner import run
    from lra.benchmarks.setup.layers import parse_assignment
    from lra.benchmarks.setup.resolution import resolve

    layers = [{"method": "aeahl-rg", "replay": "pool", "teacher": "mlp", "student": "mlp", "schedule": {"steps": 4}}]
    layers += [parse_assignment(f"{key}={value}") for key, value in (SETTINGS | REUSABLE).items()]
    return run(resolve(layers), tmp_path_factory.mktemp("left"), quiet=True).path / "generator.safetensors"


def without_decoder(file: Path, folder: Path) -> Path:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("decoder")}
    save_file(tensors, folder / "headless.safetensors", metadata)
    return folder / "headless.safetensors"


def nameless(file: Path, folder: Path) -> Path:
    save_file(load_file(file), folder / "nameless.safetensors")
    return folder / "nameless.safetensors"


def damaged(file: Path, folder: Path) -> Path:
    (folder / "damaged.safetensors").write_bytes(file.read_bytes()[:100])
    return folder / "damaged.safetensors"


@pytest.mark.parametrize(
    ("make", "settings", "message", "code"),
    [
        (lambda file, _: file, ["synthesis.reuse=fix", "data.size=16"], "1x8x8 and this task has 1x16x16", 2),
        (
            lambda file, _: file,
            ["synthesis.reuse=fix", "synthesis.latent=32"],
            "takes 128 latents and this task's 32",
            2,
        ),
        (lambda file, _: file, [], "'anew' starts from nothing", 2),
        (without_decoder, ["synthesis.reuse=common"], "no 'decoder' part", 2),
        (nameless, ["synthesis.reuse=common"], "does not say where it is from", 2),
        (damaged, ["synthesis.reuse=common"], "cannot be read", 2),
        (lambda *_: Path("nowhere.safetensors"), ["synthesis.reuse=common"], "does not exist", 3),
        (None, ["synthesis.reuse=fix"], "needs a generator", 2),
    ],
)
def test_a_generator_that_does_not_fit_is_refused_before_anything_is_written(
    lra_bench: Call, left: Path, tmp_path: Path, make: Any, settings: list[str], message: str, code: int
) -> None:
    given = [] if make is None else [f"carry.generator={make(left, tmp_path)}"]
    options = [part for setting in [*settings, *given] for part in ("--set", setting)]
    done = lra_bench(*RUN, *options, "--out", tmp_path / "runs")
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_what_is_carried_names_the_run_by_its_content(left: Path, tmp_path: Path) -> None:
    from lra.benchmarks.setup.resolution import resolve

    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(left.read_bytes())
    alone = resolve([{"method": "aeahl-rg"}])
    assert "carry" not in alone.tree()
    found = {resolve([{"method": "aeahl-rg", "carry": {"generator": str(f)}}]).fingerprint("x") for f in (left, copy)}
    assert len(found) == 1
    assert alone.fingerprint("x") not in found


def test_a_replay_of_another_kind_is_refused(tasks: Call, tmp_path: Path, lra_bench: Call) -> None:
    assert tasks(tree(method="dafl", replay="memory", carry="replay", tasks=TWO[:1])).code == 0
    file = folders(tmp_path / "out")[0][0] / "replay.pt"
    done = lra_bench(*RUN, "--set", f"carry.replay={file}", "--out", tmp_path / "runs")
    assert done.code == 2
    assert "holds replay 'memory' and this run's is 'pool'" in done.err


def test_a_method_that_leaves_no_generator_cannot_carry_one(tasks: Call) -> None:
    done = tasks(tree(method="zskd", carry="generator", set={"synthesis.images": 16, "synthesis.steps": 1}))
    assert done.code == 1
    assert "task 'low' left no generator.safetensors" in done.err


@pytest.mark.parametrize(
    ("settings", "hard", "attacked"),
    [
        ([], False, True),
        (["--set", "synthesis.hard_loss=true"], True, True),
        (["--set", "synthesis.hard_loss=true", "--set", "synthesis.aea.enabled=false"], True, False),
    ],
)
def test_the_hard_loss_and_its_attack_are_set(lra_bench: Call, settings: list[str], hard: bool, attacked: bool) -> None:
    done = lra_bench("run", "--method", "aeahl-rg", *settings, "--dry-run", "--no-timing", "--json")
    synthesis = json.loads(done.out)["config"]["synthesis"]
    assert (synthesis["hard_loss"], synthesis["aea"]["enabled"]) == (hard, attacked)


def test_the_hard_loss_is_of_one_method_only(lra_bench: Call) -> None:
    done = lra_bench("run", "--method", "dafl", "--set", "synthesis.hard_loss=true", "--dry-run", "--no-timing")
    assert done.code == 2
    assert "'synthesis.hard_loss': it is of aeahl-rg;" in done.err


def test_tasks_take_settings_and_say_what_they_would_take(tasks: Call, tmp_path: Path) -> None:
    content = tree(method="dafl", replay="none", set={"synthesis.width": 8})
    shown = tasks(content, "--dry-run", "--json")
    assert (shown.code, (tmp_path / "out").exists()) == (0, False), shown.err
    assert [run["label"] for run in json.loads(shown.out)["runs"]] == [
        "low, reuse anew, seed 0",
        "turned, reuse anew, seed 0",
    ]
    done = tasks(content, "--threads", 2, "--set", "student.lr=0.02")
    assert done.code == 0, done.err
    for folder in folders(tmp_path / "out")[0]:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["threads"], config["student"]["lr"]) == (2, 0.02)
    log, page = ((tmp_path / "out" / name).read_text() for name in ("log.txt", "report.html"))
    assert log.count("student step 4") >= 2, "of each task"
    assert "Result of each task" in page


def test_intervals_of_a_task_end_at_what_its_measures_can_be() -> None:
    for heading, measure in task_report.MEASURES.items():
        if "%)" in heading:
            assert task_report.interval_text([90.0, 95.0, 99.9], measure.within).endswith(", 100]")
            assert task_report.interval_text([0.1, 5.0, 10.0], measure.within).split("[")[1].startswith("0,")
    assert task_report.interval_text([90.0, 95.0, 99.9]).endswith(", 107.3]")
