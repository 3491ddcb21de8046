"""lra-bench run, end to end: files, numbers, the same bytes for the same seed, stopping and going on."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from lra.benchmarks import cli, errors
from lra.benchmarks.files import write_checkpoint
from lra.benchmarks.runs import training
from lra.benchmarks.runs.run_folder import MetricsFile, RunFolder
from lra.benchmarks.runs.training import Training
from lra.benchmarks.setup import datasets, teachers
from lra.benchmarks.setup.datasets import DataSet, Labelled
from lra.metrics.evolution import evolution, forgetting
from lra.strategies.retention import REPLAYS

FILES = {
    *("config.yaml", "identity.json", "data.json", "env.json", "teacher.json", "metrics.jsonl", "result.json"),
    *("forgetting.json", "confusion.json"),
    *("student.safetensors", "generator.safetensors", "times.json", "report.html", "log.txt", "samples"),
}
SMALL = {"generative": ("--set", "replay.width=8", "--set", "replay.latent=10"), "memory": ("--set", "replay.period=1")}

Run = Callable[..., Path]


@pytest.fixture
def run(lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path) -> Run:
    """Do a tiny run with more options; gives its folder."""

    def do(*options: object, code: int = 0, out: str = "runs") -> Path:
        done = lra_bench("run", "--json", "--out", tmp_path / out, *tiny, *options)
        assert done.code == code, done.err
        return Path(json.loads(done.out)["run_dir"])

    return do


@pytest.fixture
def drawn() -> None:
    """Asked for by tests that look at the report: drawing it is most of a tiny run's time."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest) -> None:
    """Leave the report out, unless `drawn`."""
    if "drawn" not in request.fixturenames:
        request.getfixturevalue("plain_report")


def lines(folder: Path) -> bytes:
    return (folder / "metrics.jsonl").read_bytes()


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def same_students(first: Path, second: Path) -> bool:
    weights = [load_file(folder / "student.safetensors") for folder in (first, second)]
    return all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("replay", "meta"), [(r, m) for r in REPLAYS for m in ("--no-meta", "--meta") if (r, m) != ("none", "--meta")]
)
def test_every_retention_makes_a_whole_run_folder(run: Run, replay: str, meta: str) -> None:
    folder = run("--replay", replay, meta, *SMALL.get(replay, ()))
    pictures = {"replayed"} if replay != "none" else set()
    assert {path.name for path in folder.iterdir()} - {".lock"} == FILES | pictures
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        "step-000004.png",
        "step-000008.png",
        "step-000016.png",
        "step-000020.png",
    ], "at evaluations 1, 2, 4 and the last"
    result = result_of(folder)
    assert set(result) >= {
        *("schema", "method", "replay", "meta", "seed", "dataset", "teacher", "student", "accuracy", "agreement"),
        *("loyalty", "forgetting", "alignment", "cost", "config_hash", "versions"),
    }
    assert set(result["teacher"]) >= {"name", "sha256", "accuracy"}
    assert set(result["student"]) >= {"name", "parameters"}
    assert set(result["accuracy"]) == {
        *("final", "max", "mean", "variance", "tail_mean", "tail_variance", "curve"),
    }
    assert set(result["forgetting"]) >= {"average", "bwt", "matrix_file"}
    assert set(result["cost"]) >= {
        *("student_steps", "generator_steps", "images_generated", "teacher_queries"),
        *("seconds", "processor_seconds", "peak_memory_mb"),
    }
    assert (result["schema"], result["replay"], result["meta"]) == (1, replay, meta == "--meta")
    assert (result["alignment"]["mean"] is None) == (replay == "none")
    assert folder.parts[-3:] == (
        f"predfkd+{replay}{'+meta' if meta == '--meta' else ''}-mlp-mlp-digits",
        result["config_hash"],
        "seed-0",
    )


def test_one_image_is_too_few_for_batchnorm(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path, progress_told: None
) -> None:
    student = ("--student", "lenet5-half-bn", "--set", "data.size=16")
    done = lra_bench("run", *tiny, *student, "--set", "schedule.batch_size=1", "--out", tmp_path)
    assert (done.code, len(done.err.splitlines())) == (2, 1), done
    assert "set schedule.batch_size to at least 2" in done.err


@pytest.mark.parametrize("replay", [name for name in REPLAYS if name != "none"])
def test_pictures_and_what_they_show_leave_no_trace(run: Run, replay: str) -> None:
    chosen = ("--replay", replay, *SMALL.get(replay, ()))
    shown, hidden = run(*chosen), run(*chosen, "--set", "evaluation.samples=0")
    assert list((shown / "replayed").iterdir())
    assert not (hidden / "replayed").exists()
    assert lines(shown) == lines(hidden)
    assert same_students(shown, hidden)
    costs = [result_of(folder)["cost"] for folder in (shown, hidden)]
    assert len({(cost["teacher_queries"], cost["images_generated"]) for cost in costs}) == 1


def test_a_run_keeps_its_learned_rates_and_which_class_is_taken_for_which(run: Run) -> None:
    folder = run("--replay", "memory", "--meta", *SMALL["memory"])
    rates = [json.loads(line).get("alpha") for line in lines(folder).splitlines()]
    assert rates[-1] is not None
    assert all(rate > 0 for rate in rates[-1].values())
    assert len(set(rates[-1].values())) > 1, "they have been learned apart"
    assert rates[-1].keys() <= load_file(folder / "student.safetensors").keys()
    counts = torch.tensor(json.loads((folder / "confusion.json").read_text())["images"])
    found, images = result_of(folder)["by_class"], counts.sum(dim=1)
    assert images.tolist() == found["images"]
    assert (100 * counts.diagonal() / images).tolist() == pytest.approx(found["student"])
    constant = run("--replay", "memory", "--meta", *SMALL["memory"], "--set", "meta.alpha_rate=0")
    assert b'"alpha"' not in lines(constant)


@pytest.mark.parametrize("test", ["true", "false"])
def test_the_report_is_drawn(run: Run, lra_bench: Callable[..., Any], drawn: None, test: str) -> None:
    folder = run("--replay", "memory", "--meta", *SMALL["memory"], "--set", f"data.test={test}")
    report = folder / "report.html"
    text = report.read_text()
    assert "<svg" in text
    assert ("no test set" in text) == (test == "false")
    report.unlink()
    assert lra_bench("report", folder).out.strip() == str(report)
    assert report.read_text() == text


def test_the_result_follows_from_the_records(run: Run) -> None:
    folder = run("--replay", "reservoir")
    result = result_of(folder)
    records = [json.loads(line) for line in lines(folder).splitlines()]
    assert [record["student_step"] for record in records] == [4, 8, 12, 16, 20]
    curve = [record["accuracy"] for record in records]
    assert result["accuracy"]["curve"] == [[r["student_step"], r["accuracy"]] for r in records]
    summary = evolution(curve)
    assert result["accuracy"]["mean"] == summary.mean
    assert result["accuracy"]["variance"] == summary.variance
    assert result["accuracy"]["final"] == curve[-1]

    stored = json.loads((folder / result["forgetting"]["matrix_file"]).read_text())
    matrix = torch.tensor([[float("nan") if v is None else v for v in row] for row in stored["agreement"]])
    found = forgetting(matrix.double().numpy())
    assert found is not None
    assert result["forgetting"]["average"] == pytest.approx(found.average, abs=1e-5)
    assert result["forgetting"]["bwt"] == pytest.approx(found.bwt, abs=1e-5)

    cost = result["cost"]
    assert cost["student_steps"] == 20
    assert cost["experiences"] == cost["generator_steps"] == 10
    assert cost["images_generated"] == 10 * 16 + 20 * 16
    assert cost["teacher_queries"] == cost["images_generated"], "stored answers are not asked for again"
    weights = load_file(folder / "student.safetensors")
    learnt = sum(value.numel() for name, value in weights.items() if name not in ("mean", "std"))
    assert result["student"]["parameters"] == learnt


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(run: Run) -> None:
    options = ("--replay", "generative", "--meta", *SMALL["generative"])
    first, second = run(*options, out="a"), run(*options, out="b")
    other = run(*options, "--seed", 1, out="b")
    assert lines(first) == lines(second)
    assert same_students(first, second)
    assert other.parent == second.parent, "the same configuration, so the same hash"
    assert lines(other) != lines(first)


def test_a_finished_run_is_not_repeated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run()
    stamp = (folder / "metrics.jsonl").stat().st_mtime_ns
    monkeypatch.setattr(training, "prepare", None)
    assert run() == folder
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == stamp


def test_the_stored_configuration_runs_again_to_the_same_folder(
    run: Run, lra_bench: Callable[..., Any], tmp_path: Path
) -> None:
    folder = run("--replay", "memory", "--meta", "--set", "student.lr=0.02")
    again = lra_bench("run", "--json", "--config", folder / "config.yaml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    other = Path(json.loads(again.out)["run_dir"])
    assert other.relative_to(tmp_path / "again") == folder.relative_to(tmp_path / "runs")
    assert lines(other) == lines(folder)


def test_a_dry_run_writes_nothing(lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path) -> None:
    import yaml

    options = ("--dry-run", "--replay", "memory", *tiny, "--out", tmp_path / "runs")
    text = lra_bench("run", *options)
    assert text.code == 0
    assert yaml.safe_load(text.out)["replay"]["name"] == "memory"
    assert "student steps: 20" in text.out
    structured = json.loads(lra_bench("run", "--json", *options).out)
    assert structured["cost"] == {"student_steps": 20, "experiences": 10, "student_images": 320}
    assert structured["config"] == yaml.safe_load(text.out)
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_to_stderr_and_the_table_to_stdout(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path, progress_told: None
) -> None:
    done = lra_bench("run", *tiny, "--out", tmp_path)
    assert done.err.splitlines()[-1].startswith("10/10 experiences")
    assert "accuracy" in done.out
    assert str(tmp_path) in done.out
    assert "experiences  accuracy" not in done.out


def test_tensorboard_events_are_written_on_demand(
    run: Run, lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    folder = run("--tensorboard")
    assert list((folder / "tensorboard").glob("events*"))
    again = lra_bench("run", "--out", tmp_path / "runs", *tiny, "--tensorboard")
    assert again.code == 0
    assert "nothing to track" in again.err


def test_weights_and_biases_keeps_a_record_without_a_network(run: Run) -> None:
    pytest.importorskip("wandb")
    folder = run("--wandb", "offline")
    (record,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"forgetting" in record.read_bytes()


def test_without_weights_and_biases_a_run_that_asks_for_it_is_refused(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lra_bench: Callable[..., Any]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = lra_bench("run", *tiny, "--wandb", "offline", "--out", tmp_path / "runs")
    assert done.code == 3
    assert "pip install wandb" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", [(), ("--set", "data.test=false")])
def test_sampling_and_rarer_evaluation_change_nothing_else(run: Run, arguments: tuple[str, ...]) -> None:
    """How a run looks at itself does not reach the student."""
    often = run("--replay", "memory", "--meta")
    seldom = run(
        *("--replay", "memory", "--meta", "--set", "evaluation.every=5", "--set", "evaluation.samples=0"),
        *("--set", "evaluation.probes=1", *arguments),
    )
    assert often != seldom
    assert same_students(often, seldom)
    costs = [
        {k: v for k, v in result_of(f)["cost"].items() if k not in ("seconds", "processor_seconds", "peak_memory_mb")}
        for f in (often, seldom)
    ]
    assert costs[0] == costs[1]
    if arguments:
        result = result_of(seldom)
        assert result["accuracy"] is None
        assert result["teacher"]["accuracy"] is None


def test_training_data_never_reaches_a_distillation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a teacher in the cache the training split is not even loaded."""
    first = run(out="before")
    loaded: list[str] = []

    def guarded(make: Callable[..., DataSet]) -> Callable[..., DataSet]:
        def build(side: int | None = None) -> DataSet:
            real = make(side)

            def load(split: datasets.Split) -> Labelled:
                loaded.append(split)
                assert split == "test", "a distillation asked for training data"
                return real.load(split)

            return replace(real, load=load)

        return build

    monkeypatch.setitem(datasets.DATASETS, "digits", guarded(datasets.DATASETS["digits"]))
    assert lines(run(out="after")) == lines(first)
    assert set(loaded) == {"test"}


def test_the_test_set_is_for_evaluation_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test set changes what is measured on it, and neither student, probes nor samples."""
    options = ("--replay", "generative", "--meta", *SMALL["generative"])
    clean = run(*options, out="clean")
    make = datasets.DATASETS["digits"]

    def corrupt(side: int | None = None) -> DataSet:
        real = make(side)

        def load(split: datasets.Split) -> Labelled:
            images, classes = real.load(split)
            # Every second label is wrong: enough are right for the teacher to be taken.
            return Labelled(images.flip(-1) * 0.2 + images * 0.8, (classes + torch.arange(len(classes)) % 2) % 10)

        return replace(real, load=load)

    monkeypatch.setitem(datasets.DATASETS, "digits", corrupt)
    other = run(*options, out="corrupt")
    assert same_students(clean, other)
    kept = ("probes", "forgetting", "losses", "synthesis", "alignment", "classes")
    records = [[json.loads(line) for line in lines(folder).splitlines()] for folder in (clean, other)]
    for a, b in zip(*records, strict=True):
        assert {k: a[k] for k in kept} == {k: b[k] for k in kept}
    assert [r["accuracy"] for r in records[0]] != [r["accuracy"] for r in records[1]]
    pictures = [sorted(path.read_bytes() for path in (f / "samples").iterdir()) for f in (clean, other)]
    assert pictures[0] == pictures[1]


# All methods and replays are in test_conformance.py, and real kills in test_kills.py.
@pytest.mark.parametrize(("replay", "meta"), [("memory", "--no-meta"), ("generative", "--meta")])
def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_bytes(
    run: Run,
    lra_bench: Callable[..., Any],
    tiny: list[str],
    tmp_path: Path,
    killed: Callable[..., Path],
    replay: str,
    meta: str,
) -> None:
    options = ("--replay", replay, meta, *SMALL.get(replay, ()))
    whole = run(*options, out="whole")
    folder = killed("--out", tmp_path / "killed", *tiny, *options)
    checkpoint = folder / "checkpoint.pt"
    assert len(lines(folder).splitlines()) == 4, "two of which the checkpoint knows nothing of"
    assert not (folder / "result.json").exists()
    done = lra_bench("resume", folder, "--json")
    assert done.code == 0, done.err
    assert lines(folder) == lines(whole)
    assert same_students(folder, whole)
    results = [result_of(f) for f in (folder, whole)]
    for result in results:
        for name in ("seconds", "processor_seconds", "peak_memory_mb"):
            del result["cost"][name]
    assert results[0] == results[1]
    assert not checkpoint.exists()
    log = (folder / "log.txt").read_text()
    assert "resumed at experience 5 of 10" in log
    assert log.count("student step 20: accuracy") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_stops_a_run_at_its_next_rest(
    run: Run,
    lra_bench: Callable[..., Any],
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    whole = run("--replay", "memory", "--meta", out="whole")
    kept = Training._keep

    def stop(self: Training, record: dict[str, Any]) -> None:
        kept(self, record)
        if record["experience"] == 6:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_keep", stop)
        done = lra_bench("run", "--out", tmp_path / "stopped", *tiny, "--replay", "memory", "--meta")
    assert done.code == code
    folder = next((tmp_path / "stopped").rglob("checkpoint.pt")).parent
    assert done.err.splitlines()[-1] == f"lra-bench: stopped; continue with lra-bench resume {folder}"
    assert lra_bench("resume", folder).code == 0
    assert lines(folder) == lines(whole)
    assert same_students(folder, whole)


@pytest.mark.parametrize("step", [1, 20, 21, 22, 23])
@pytest.mark.parametrize("replay", ["memory", "generative"])
def test_a_signal_in_a_long_experience_stops_the_run_at_the_end_of_a_step(
    run: Run,
    lra_bench: Callable[..., Any],
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replay: str,
    step: int,
) -> None:
    """Whichever optimiser's step it is; the experience is begun again, from where it began."""
    whole = run("--replay", replay, out="whole")
    steps = 0

    def count(*taken: object) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(errors, "PATIENCE", 0.0)
        patch.setattr(training, "PATIENCE", 0.0)
        hook = register_optimizer_step_post_hook(count)
        try:
            done = lra_bench("run", "--out", tmp_path / "stopped", *tiny, "--replay", replay)
        finally:
            hook.remove()
    assert done.code == 130
    assert steps == step
    folder = next((tmp_path / "stopped").rglob("checkpoint.pt")).parent
    assert lra_bench("resume", folder).code == 0
    assert lines(folder) == lines(whole)
    assert same_students(folder, whole)


class Process:
    """``lra-bench`` in a process of its own, a copy of this one: what the command needs is imported there already."""

    def __init__(self, words: list[str], said: Path):
        self.said = said
        self.process = multiprocessing.get_context("fork").Process(target=self._do, args=(words,))
        self.process.start()

    def _do(self, words: list[str]) -> None:
        with self.said.open("w", buffering=1) as stderr, redirect_stderr(stderr):
            os.dup2(stderr.fileno(), errors.STDERR)
            sys.argv = ["lra-bench", *words]
            cli.main()

    def wait(self, there: Callable[[], bool]) -> None:
        """Wait for something that it does."""
        deadline = time.monotonic() + 300
        while not there():
            assert self.process.is_alive(), self.said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid or 0, number)

    def end(self, timeout: float = 300) -> int | None:
        """Its exit code, when it has ended."""
        self.process.join(timeout)
        return self.process.exitcode


Started = Callable[..., Process]
ENDLESS = ("--set", "schedule.steps_per_experience=100000", "--steps", "100000")
"""An experience of minutes."""


@pytest.fixture
def started(tiny: list[str], tmp_path: Path) -> Iterator[Started]:
    """Start a long run in a process of its own, and wait until it has written something into a file."""
    processes = []

    def start(wanted: str, text: str, *options: str) -> Process:
        long = ["run", "--out", str(tmp_path), *tiny, "--steps", "4000", "--replay", "memory", *options]
        processes.append(Process(long, tmp_path / "stderr"))
        processes[-1].wait(lambda: any(text in file.read_text() for file in tmp_path.rglob(wanted)))
        return processes[-1]

    yield start
    for each in processes:
        each.process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_process_that_is_interrupted_can_be_resumed(started: Started, tmp_path: Path, number: int, code: int) -> None:
    """The real thing: a signal to a process of its own, at whatever moment it comes."""
    process = started("metrics.jsonl", "\n")
    process.signal(number)
    assert process.end() == code
    (checkpoint,) = tmp_path.rglob("checkpoint.pt")
    assert f"lra-bench resume {checkpoint.parent}" in process.said.read_text()
    state = RunFolder(checkpoint.parent).restore()
    assert state is not None
    assert state["records"] == len(lines(checkpoint.parent).splitlines())
    assert 0 < state["position"] < 2000


def test_ctrl_c_does_not_wait_for_an_experience_of_minutes(started: Started, tmp_path: Path) -> None:
    process = started(
        "log.txt", "0/1 experiences", "--set", "schedule.steps_per_experience=100000", "--steps", "100000"
    )
    process.signal(signal.SIGINT)
    assert process.end(timeout=60) == 130
    (checkpoint,) = tmp_path.rglob("checkpoint.pt")
    state = RunFolder(checkpoint.parent).restore()
    assert state is not None
    assert state["position"] == 0


def test_a_second_ctrl_c_does_not_wait(started: Started, tmp_path: Path) -> None:
    process = started(
        "log.txt", "0/1 experiences", "--set", "schedule.steps_per_experience=100000", "--steps", "100000"
    )
    process.signal(signal.SIGINT)
    process.wait(lambda: "once more stops at once" in process.said.read_text())
    assert process.end(timeout=0) is None, "it waits for the end of the experience, though not for long"
    process.signal(signal.SIGINT)
    assert process.end() == 130
    assert process.said.read_text().splitlines()[-1].startswith("lra-bench: stopped at once")
    assert not list(tmp_path.rglob("result.json"))


def test_resuming_what_is_finished_gives_its_result(run: Run, lra_bench: Callable[..., Any]) -> None:
    folder = run()
    done = lra_bench("resume", folder, "--json")
    assert done.code == 0
    assert json.loads(done.out) == result_of(folder) | {"run_dir": str(folder)}


def test_a_run_may_be_resumed_from_inside_its_folder(
    run: Run, lra_bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run()
    monkeypatch.chdir(folder.parent)
    assert lra_bench("resume", folder.name).code == 0
    monkeypatch.chdir(folder)
    assert lra_bench("resume", ".").code == 0


def test_a_folder_that_was_moved_is_the_same_run(run: Run, lra_bench: Callable[..., Any]) -> None:
    folder = run()
    moved = folder.rename(folder.with_name("seed-7"))
    done = lra_bench("resume", moved, "--json")
    assert done.code == 0, done.err
    assert Path(json.loads(done.out)["run_dir"]) == moved
    assert not folder.exists()


def test_a_folder_in_use_is_left_alone(
    run: Run, lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    folder = run()
    (folder / "result.json").unlink()
    before = lines(folder)
    with RunFolder(folder).locked():
        done = lra_bench("run", "--out", tmp_path / "runs", *tiny)
    assert done.code == 1
    assert "in use by another process" in done.err
    assert lines(folder) == before


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_is_named(
    run: Run, lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path, damage: bytes | None
) -> None:
    folder = run()
    (folder / "result.json").unlink()
    if damage is None:
        state = {"records": 0, "seconds": 0.0, "processor_seconds": 0.0, "rollbacks": [], "student": {}}
        write_checkpoint(folder / "checkpoint.pt", state)
    else:
        (folder / "checkpoint.pt").write_bytes(damage)
    done = lra_bench("resume", folder)
    assert done.code == 2
    assert str(folder / "checkpoint.pt") in done.err
    assert len(done.err.splitlines()) == 1
    assert (folder / "checkpoint.pt").exists()


def test_lost_records_are_noticed(tmp_path: Path) -> None:
    from lra.benchmarks.errors import UsageError

    file = tmp_path / "metrics.jsonl"
    file.write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n{"a"')
    assert MetricsFile(file, 2).records == [{"a": 1}, {"a": 2}]
    assert file.read_text() == '{"a": 1}\n{"a": 2}\n'
    with pytest.raises(UsageError, match="lost records"):
        MetricsFile(file, 3)


def test_a_student_that_diverges_fails_the_run(lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path) -> None:
    for meta in ("--no-meta", "--meta"):
        done = lra_bench(
            *("run", "--out", tmp_path, *tiny, "--replay", "memory", "--set", "replay.period=1", meta),
            *("--set", "student.lr=1e20"),
        )
        assert done.code == 1
        assert "diverged" in done.err.splitlines()[-1]
    assert not list(tmp_path.rglob("result.json"))


def test_teacher_commands(lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path) -> None:
    options = [part for part in tiny if part not in ("--steps", "20")]
    trained = json.loads(lra_bench("teacher", "train", "--json", *options).out)
    assert trained["accuracy"] > 80
    assert trained["file"] in lra_bench("teacher", "list").out.splitlines()
    checked = lra_bench("teacher", "check", trained["file"], "--json", "--set", "data.size=8")
    assert json.loads(checked.out) == trained
    assert teachers.cache_folder() in Path(trained["file"]).parents


def test_a_run_says_first_what_is_replayed_and_which_scale_it_took(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    done = lra_bench("run", *tiny, "--method", "dafl", "--replay", "memory", "--out", tmp_path)
    assert done.code == 0, done.err
    first, second, *_ = done.err.splitlines()
    assert first.startswith("method dafl, replay memory: ring of past batches")
    assert second.startswith("scale digits: few small grey images")
    assert "(1x8x8, 10 classes, 360 test images, cpu)" in second
    log = next(tmp_path.rglob("log.txt")).read_text()
    assert all(line in log for line in (first, second))
