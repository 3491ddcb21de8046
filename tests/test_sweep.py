"""Grids and sweeps: plans, failures and signals with an engine in this process, lost workers with real ones."""

import fcntl
import json
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lra.benchmarks import progress
from lra.benchmarks.comparison.compare import compare
from lra.benchmarks.errors import Interrupted, LraError
from lra.benchmarks.runs import machine
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.sweeps import engines, sweep_progress
from lra.benchmarks.sweeps.engines import Engine, Job, LocalEngine, Outcome, work
from lra.benchmarks.sweeps.grid import expand, plan, with_settings
from lra.benchmarks.sweeps.sweep import Entry, SweepDisplay, makespan, sweep, told
from lra.benchmarks.sweeps.sweep_progress import SweepProgress, last_line, last_record

GRID: dict[str, Any] = {
    "teacher": "mlp",
    "student": "mlp",
    "steps": 20,
    "replay": ["none", "memory"],
    "seed": [0, 1],
    "set": {
        "data.size": 8,
        "teacher.epochs": 3,
        "schedule.batch_size": 16,
        "schedule.steps_per_experience": 2,
        "schedule.experiences_per_epoch": 2,
        "evaluation.probe_size": 16,
        "evaluation.samples": 0,
    },
}


class Inline:
    """Does jobs in this process."""

    def __init__(self, do: Callable[[Job], tuple[Any, str]] = work):
        self.do = do
        self.jobs: list[Job] = []
        self.stopping = self.closed = False

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome | None]:
        for index, job in enumerate(jobs):
            if not self.stopping:
                self.jobs.append(job)
                yield None
                yield Outcome(index, *self.do(job))

    def running(self) -> list[int]:
        return []

    def stop(self) -> None:
        self.stopping = True

    def close(self) -> None:
        self.closed = True


@dataclass
class Watched:
    """A view that remembers, and can act when it is shown something."""

    act: Callable[[], None] = lambda: None
    entries: list[Entry] = field(default_factory=list)

    def show(self, entries: Sequence[Entry], running: Sequence[int]) -> None:
        self.act()

    def ended(self, entry: Entry) -> None:
        self.entries.append(entry)


def swept(grid: dict[str, Any], out: Path, engine: Engine, view: SweepDisplay) -> list[Entry]:
    """Do the sweep of a grid."""
    return sweep(plan(grid), grid, out, engine, view)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of `GRID`."""
    out = tmp_path_factory.mktemp("sweep")
    entries = swept(GRID, out, Inline(), Watched())
    assert [entry.status for entry in entries] == ["done"] * 4, [entry.reason for entry in entries]
    return out


def test_lists_are_axes_and_the_last_is_fastest() -> None:
    cells = expand({"method": "predfkd", "seed": [0, 1], "set": {"student.lr": [0.1, 0.3]}})
    assert [(cell["seed"], cell["set:student.lr"]) for cell in cells] == [(0, 0.1), (0, 0.3), (1, 0.1), (1, 0.3)]


def test_labels_name_the_axes_only() -> None:
    labels = [run.label for run in plan(GRID | {"meta": [False, True]})]
    assert labels[0] == "replay=none seed=0 meta=false"
    assert len(labels) == 6  # the meta step without a replay is left out


def test_a_combination_given_twice_is_one_run() -> None:
    assert len(plan({"seed": [0, 0, 1]})) == 2


def test_combinations_that_come_to_one_folder_are_one_run() -> None:
    """Options of a meta step that is not taken, and what a run's folder says nothing of."""
    alphas = {"replay": "memory", "meta": [False, True], "set": {"meta.alpha": [0.01, 0.03]}}
    assert [run.config.meta.enabled for run in plan(alphas)] == [False, True, True]
    assert len(plan({"set": {"on_divergence": ["stop", "rollback"]}})) == 1


def test_the_replay_of_the_paper_is_each_methods_own_and_doneonce() -> None:
    runs = plan({"method": ["dafl", "predfkd", "zskd"], "replay": ["none", "paper", "generative"]})
    done = [(run.config.method, run.config.replay["name"]) for run in runs]
    assert done == [
        ("dafl", "none"),
        ("dafl", "generative"),
        ("predfkd", "none"),
        ("predfkd", "generative"),
        ("zskd", "none"),
        ("zskd", "pool"),
        ("zskd", "generative"),
    ]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"sead": [0]}, "unknown key 'sead'; did you mean 'seed'?"),
        ({"seed": []}, "seed is an empty list"),
        ({"seed": [[0]]}, "a list of plain values"),
        ({"set": 5}, "set = 5"),
        ({"set": {"threads": 2}}, "--threads"),
        ({"set": {"student.lrr": 0.1}}, "student.lrr"),
        ({"replay": ["none", "memry"]}, "grid.yaml: replay=memry: unknown replay"),
        ({"steps": "many"}, "schedule.steps"),
        ({"replay": "none", "meta": True}, "needs a replay"),
    ],
)
def test_wrong_grids_are_one_line(grid: dict[str, Any], words: str, tmp_path: Path, lra_bench: Any) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(grid))
    done = lra_bench("sweep", file, "--out", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert words in done.err
    assert not (tmp_path / "out").exists()


def test_a_missing_grid_is_missing_input(tmp_path: Path, lra_bench: Any) -> None:
    assert lra_bench("sweep", tmp_path / "none.yaml").code == 3


def test_a_sweep_says_what_it_holds_and_compares(done: Path) -> None:
    record = json.loads((done / "sweep.json").read_text())
    assert record["grid"] == GRID
    assert [run["status"] for run in record["runs"]] == ["done"] * 4
    assert all((done / run["folder"] / "result.json").is_file() for run in record["runs"])
    assert [(row.group.label, row.seeds) for row in compare([done]).rows] == [("none", 2), ("memory", 2)]


def test_finished_runs_are_not_repeated(done: Path) -> None:
    engine = Inline()
    entries = swept(GRID | {"seed": [1, 0]}, done, engine, Watched())
    assert {entry.status for entry in entries} == {"finished before"}
    assert engine.jobs == []


def test_a_failed_run_does_not_stop_the_others(tmp_path: Path, done: Path) -> None:
    def do(job: Job) -> tuple[str, str]:
        return ("failed", "it broke") if job.tree["seed"] == 0 else ("done", "")

    view = Watched()
    entries = swept(GRID, tmp_path, Inline(do), view)
    assert [(entry.status, entry.reason) for entry in entries] == [("failed", "it broke"), ("done", "")] * 2
    assert len(view.entries) == 4
    assert json.loads((tmp_path / "sweep.json").read_text())["runs"][0]["reason"] == "it broke"


def test_failures_are_listed_at_the_end(tmp_path: Path, lra_bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lra.benchmarks.sweeps.engines.LocalEngine", lambda *arguments: Inline(lambda job: ("failed", "no"))
    )
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID))
    done = lra_bench("sweep", file, "--out", tmp_path / "out")
    assert done.code == 1
    *_, first, _, _, _, last = done.err.splitlines()
    assert first == "failed: replay=none seed=0: no"
    assert last == "lra-bench: 4 of 4 runs failed, as listed; the same command tries them again"
    assert lra_bench("report", tmp_path / "out").code == 0
    assert "replay=none seed=0: no" in (tmp_path / "out" / "report.html").read_text()


def test_a_teacher_that_is_not_there_fails_its_runs_only(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    entries = swept(GRID | {"seed": 0, "teacher": ["mlp", str(broken)]}, tmp_path / "out", Inline(), Watched())
    assert sorted(entry.status for entry in entries) == ["done", "done", "failed", "failed"]
    assert all("broken.safetensors" in entry.reason for entry in entries if entry.status == "failed")


def test_an_unforeseen_error_is_one_line_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("over\nnothing")

    monkeypatch.setattr("lra.benchmarks.runs.runner.run", run)
    status, reason = work(Job(plan(GRID)[0].config.tree(), str(tmp_path), str(tmp_path / "run"), 1, {}))
    assert status == "failed"
    assert reason == f"ZeroDivisionError: over nothing (see {tmp_path / 'run' / 'error.txt'})"
    assert "Traceback" in (tmp_path / "run" / "error.txt").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_stops_and_leaves_all_resumable(tmp_path: Path, done: Path, number: int, code: int) -> None:
    engine = Inline(lambda job: ("stopped", ""))
    with pytest.raises(Interrupted) as stopped:
        swept(GRID, tmp_path, engine, Watched(act=once(lambda: os.kill(os.getpid(), number))))
    assert stopped.value.code == code
    assert engine.closed
    assert {run["status"] for run in json.loads((tmp_path / "sweep.json").read_text())["runs"]} == {
        "stopped",
        "waiting",
    }


def once(act: Callable[[], None]) -> Callable[[], None]:
    left = [act]
    return lambda: left.pop()() if left else None


def test_two_sweeps_in_one_folder_are_refused(tmp_path: Path, done: Path) -> None:
    with (tmp_path / ".sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LraError, match="another sweep works in"):
            swept(GRID, tmp_path, Inline(), Watched())


def test_dry_run_times_and_writes_nothing(done: Path, tmp_path: Path, lra_bench: Any) -> None:
    file, out = tmp_path / "grid.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(GRID))
    fresh = lra_bench("sweep", file, "--out", out, "--dry-run", "--workers", 2)
    assert fresh.code == 0
    assert "from 4 timed experiences" in fresh.out
    assert "4 runs, 4 to do: " in fresh.out
    assert not out.exists()
    rows = json.loads(lra_bench("sweep", file, "--out", out, "--dry-run", "--json").out)["runs"]
    assert all(row["beside"] > 0 for row in rows), "start-up and report"
    again = lra_bench("sweep", file, "--out", done, "--dry-run")
    assert again.out.count("finished ") >= 4
    assert "4 runs, 0 to do" in again.out


def test_what_is_set_is_set_in_all_runs_of_a_grid(tmp_path: Path, lra_bench: Any) -> None:
    file = tmp_path / "grid.yaml"
    grid = GRID | {"seed": 0, "replay": "none", "also": [{"set": {"student.lr": 0.2}}]}
    file.write_text(yaml.safe_dump(grid | {"set": GRID["set"] | {"student.lr": [0.3, 0.4]}}))
    given = ("sweep", file, "--out", tmp_path / "out", "--dry-run", "--no-timing")
    labels = [row["label"] for row in json.loads(lra_bench(*given, "--json").out)["runs"]]
    assert {label.partition("student.lr=")[2].split()[0] for label in labels} == {"0.2", "0.3", "0.4"}
    two = lra_bench(*given, "--set", "student.lr=[0.5, 0.6]", "--set", "student.momentum=0.5").out
    assert "student.lr=0.5" in two
    assert "student.lr=0.6" in two
    assert "0.3" not in two
    tree = with_settings(yaml.safe_load(file.read_text()), ["student.lr=0.7"])
    assert {run.config.student.lr for run in plan(tree)} == {0.7}
    for wrong, said in (("student.lr", "section.key=value"), ("student.lrr=1", "student.lr")):
        done = lra_bench(*given, "--set", wrong)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert said in done.err
    assert not (tmp_path / "out").exists()


def test_which_runs_there_are_is_told_atonce(done: Path, tmp_path: Path, lra_bench: Any) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID | {"seed": [0, 1, 7]}))
    told = lra_bench("sweep", file, "--out", done, "--dry-run", "--no-timing")
    assert "6 runs, 2 to do" in told.out
    assert told.out.count("finished") == 4
    assert lra_bench("sweep", file, "--out", done, "--no-timing").code == 2


def test_an_estimate_counts_starts_teachers_and_reports() -> None:
    run = {"label": "one", "status": "to do", "basis": "", "seconds": 10.0, "beside": 5.0, "memory": 0.0}
    done = run | {"status": "finished"}
    lines = list(told([run, run, run, done], 2, {"teacher": 7.0}, start=4.0))
    assert "4 runs, 3 to do: about 45 s on 2 workers" in lines, "7 + 2 * 4 + 2 rounds of 15"
    assert any("30 s training and evaluation, 15 s start-up and reports" in line for line in lines)
    assert "1 teacher would be trained first: 7 s, included above" in lines
    assert "1 run, 0 to do: about 0 s on 2 workers" in list(told([done], 2, {}))


@pytest.mark.parametrize(
    ("jobs", "workers", "whole"), [([], 2, 0), ([3, 1, 1], 2, 3), ([1, 1, 3], 2, 4), ([2, 2], 1, 4)]
)
def test_jobs_are_begun_in_turn_by_whoever_is_free(jobs: list[float], workers: int, whole: float) -> None:
    assert makespan(jobs, workers) == whole


@pytest.mark.kernels
def test_a_run_that_cannot_be_timed_is_said_so(
    done: Path, tmp_path: Path, lra_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lra.benchmarks.sweeps.sweep.worker_seconds", lambda: 1.0)
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID | {"seed": 0, "set": GRID["set"] | {"student.lr": 1e30}}))
    shown = lra_bench("sweep", file, "--out", tmp_path / "out", "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    assert "to do" in shown.out
    # Infinite or none any more: which comes first, rounding decides.
    assert re.search(r"(nan|inf) at student step", shown.out)
    runs = json.loads(lra_bench("sweep", file, "--out", tmp_path / "out", "--dry-run", "--json").out)["runs"]
    assert [(run["status"], run["seconds"]) for run in runs] == [("to do", None)] * 2


def test_a_grid_takes_the_flags_of_a_run() -> None:
    settings = {"synthesis.hard_loss": [False, True], "synthesis.aea.enabled": False}
    grid = {"method": "aeahl-rg", "on_divergence": "rollback", "set": settings}
    configs = [run.config for run in plan(grid)]
    assert [config.synthesis["hard_loss"] for config in configs] == [False, True]
    assert {config.on_divergence for config in configs} == {"rollback"}
    assert not any(config.synthesis["aea"]["enabled"] for config in configs)


def test_lines_for_a_log(done: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    swept(GRID, done, Inline(), SweepProgress(4))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("1/4  replay=none seed=0  finished before: accuracy ")
    assert "\x1b" not in "".join(lines)


def test_a_table_on_a_terminal(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entries = swept(GRID, done, Inline(), Watched())
    view = SweepProgress(4)
    view.live = True
    view.show(entries, [0, 3])
    view.ended(entries[0])
    shown = capfd.readouterr().err
    assert "[####################] 20/20  replay=none seed=0  accuracy " in shown
    assert "0 of 4 ended, 2 running" in shown
    assert "\x1b[3A\x1b[J1/4  " in shown


def test_the_last_record_of_a_file_in_writing(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert last_record(file) == {}
    file.write_text('{"student_step": 1}\n{"student_step": 2}\n{"stud')
    assert last_record(file) == {"student_step": 2}


def rerun(grid: dict[str, Any], out: Path, engine: Engine, kill: Callable[[], None]) -> list[Entry]:
    """Sweep, and call ``kill`` once as soon as a run has begun to write metrics."""
    act = once(kill)

    def look() -> None:
        if any(file.stat().st_size for file in out.rglob("metrics.jsonl")):
            act()

    return swept(grid, out, engine, Watched(act=look))


def test_a_killed_process_loses_nothing(tmp_path: Path, done: Path, forked: object) -> None:
    engine = LocalEngine(1)
    grid = GRID | {"steps": 200, "replay": "memory", "seed": 0}
    pids: list[int] = []

    def kill() -> None:
        pids.append(engine.pool[0].process.pid or 0)
        os.kill(pids[0], signal.SIGKILL)

    (entry,) = rerun(grid, tmp_path, engine, kill)
    assert pids
    assert (entry.status, entry.reason) == ("done", "")
    assert engine.pool == []


def test_runs_are_spread_over_the_gpus(
    tmp_path: Path, lra_bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many on each, also when one has died; each process sees its own and no other."""
    made: list[LocalEngine] = []

    def engine(workers: int, cards: Sequence[str]) -> Inline:
        made.append(LocalEngine(workers, cards))
        return Inline(lambda job: ("done", ""))

    monkeypatch.setattr(machine, "cards", lambda: ["3", "5"])
    monkeypatch.setattr("lra.benchmarks.sweeps.engines.LocalEngine", engine)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID | {"device": "cuda"}))
    call = ("sweep", tmp_path / "grid.yaml", "--out", tmp_path / "out")
    lra_bench(*call, "--per-gpu", 3)
    assert made[0].workers == 6
    for _ in range(4):
        made[0].pool.append(SimpleNamespace(card=made[0]._emptiest()))  # type: ignore[arg-type]
    assert [worker.card for worker in made[0].pool] == ["3", "5", "3", "5"]
    del made[0].pool[1]
    assert made[0]._emptiest() == "5"
    assert LocalEngine(2)._emptiest() is None

    ours, theirs = multiprocessing.Pipe()
    monkeypatch.setattr(os, "setpgid", lambda *ids: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(engines, "work", lambda job: os.environ["CUDA_VISIBLE_DEVICES"])
    ours.send("a job")
    thread = threading.Thread(target=engines._serve, args=(theirs, "5"))
    thread.start()
    assert ours.recv() == "5"
    ours.close()
    thread.join()


@pytest.mark.parametrize(
    ("grid", "cards", "more", "said"),
    [
        ({"device": "cuda"}, [], (), "torch sees no GPU on this machine"),
        ({"device": "cuda:1"}, ["0", "1"], (), "is on 'cuda:1': write device: cuda in the grid"),
        ({}, ["0"], (), "is on 'cpu': write device: cuda in the grid"),
        ({"device": "cuda"}, ["0"], ("--workers", 2), "leave --workers out"),
        ({"device": "cuda"}, ["0"], ("--engine", "ray"), "--engine ray has --gpus"),
    ],
)
def test_what_cannot_be_spread_over_gpus(
    tmp_path: Path,
    lra_bench: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    grid: dict[str, Any],
    cards: list[str],
    more: tuple[object, ...],
    said: str,
) -> None:
    monkeypatch.setattr(machine, "cards", lambda: cards)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID | grid))
    code, out, err = lra_bench("sweep", tmp_path / "grid.yaml", "--out", tmp_path / "out", "--per-gpu", 2, *more)
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]


def test_gpus_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.cards() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-9f")
    assert machine.cards() == ["4", "GPU-9f"]


def test_an_address_is_for_ray(tmp_path: Path, lra_bench: Any) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID))
    assert lra_bench("sweep", file, "--address", "auto").code == 2


def test_lines_at_a_steady_pace_where_no_table_can_be_drawn(
    done: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its workers are doing, from the first second, and the time left by the steps of all runs."""
    hand = SimpleNamespace(now=0.0)
    hand.monotonic = lambda: hand.now
    for module in (progress, sweep_progress):
        monkeypatch.setattr(module, "time", hand)
    monkeypatch.setattr(progress, "FIRST", 1.0)
    entries = [
        Entry(f"run {i}", entry.config, RunFolder(tmp_path / str(i)), "waiting")
        for i, entry in enumerate(swept(GRID, done, Inline(), Watched()))
    ]
    view = SweepProgress(4)
    for folder in (tmp_path / "0", tmp_path / "1"):
        folder.mkdir()
    # Half done before, when it was stopped.
    (tmp_path / "1" / "metrics.jsonl").write_text('{"student_step": 10}\n')
    (tmp_path / "1" / "log.txt").write_text("2026-01-01 09:00:00,123 stopped; continue with lra-bench resume 1\n")
    view.show(entries, [])
    (tmp_path / "0" / "log.txt").write_text("2026-01-01 10:00:00,123 0/10 experiences  generator step 3/9\n2026")
    view.show(entries, [0, 1])
    assert capfd.readouterr().err.splitlines() == [
        "0 of 4 ended, 2 running, 2 waiting",
        "  run 0  0/10 experiences  generator step 3/9",
        "  run 1  starting",
    ]
    hand.now = 0.5
    view.show(entries, [0, 1])
    assert capfd.readouterr().err == "", "it is not time yet"
    (tmp_path / "1" / "metrics.jsonl").write_text('{"student_step": 10}\n{"student_step": 15}\n')
    hand.now = 10.0
    view.show(entries, [0, 1])
    # 5 steps in 10 seconds; 20 + 5 + 20 + 20 of 80 are left.
    assert capfd.readouterr().err.splitlines()[0] == "0 of 4 ended, 2 running, 2 waiting, about 2 min left"
    entries[0] = replace(entries[0], status="done")
    entries[2] = replace(entries[2], status="failed")
    hand.now = 25.0
    view.show(entries, [1])
    # 25 steps in 25 seconds; 5 and 20 are left, and a failed run takes no more.
    assert "1 failed, about 25 s left" in capfd.readouterr().err
    view.show(entries, [])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "text", ["", "no newline", "no time\n", "2026-01-01 10:00:00,1\n", "\x1b[2J,\x07 \x1b[31mred\n"]
)
def test_the_last_line_of_any_log(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.txt").write_text(text)
    assert last_line(tmp_path / "log.txt").isprintable()
