"""What is said while work goes on: lines at a steady pace with the time left, a bar where one can be drawn."""

import fcntl
import logging
import os
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lra.benchmarks import progress
from lra.benchmarks.progress import PACE, Progress, clock, drawable

Bench = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("progress_told")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hand = Clock()
    monkeypatch.setattr(progress, "time", hand)
    return hand


class Terminal:
    """The far end of a pseudo-terminal."""

    def __init__(self, columns: int):
        self.far, self.near = os.openpty()
        fcntl.ioctl(self.near, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
        self.file = open(self.near, "w")  # noqa: SIM115

    def shown(self) -> str:
        self.file.flush()
        os.set_blocking(self.far, False)
        found = b""
        while True:
            try:
                found += os.read(self.far, 65536)
            except OSError:
                return found.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    """Make stderr a terminal of so many columns."""
    made = []
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)

    def make(columns: int) -> Terminal:
        made.append(Terminal(columns))
        monkeypatch.setattr(sys, "stderr", made[-1].file)
        return made[-1]

    yield make
    for one in made:
        one.file.close()
        os.close(one.far)


def test_lines_come_at_once_after_a_second_and_then_steadily(
    time: Clock, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lra"):
        work = Progress(100, "parts")
        for second in range(41):
            time.now = 1000.0 + second
            work.show(2 * second)
        time.now += 0.5
        work.done = 100
        work.close("at last")
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "0/100 parts",
        "2/100 parts  49 s left",
        "22/100 parts  39 s left",
        "42/100 parts  29 s left",
        "62/100 parts  19 s left",
        "100/100 parts  at last",
    ]
    assert [record.message for record in caplog.records] == lines, "the log gets the same"


def test_time_left_counts_from_where_it_began(time: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    """A resumed piece of work must not think that it did in a second what was done before."""
    work = Progress(100, "epochs", "teacher", done=90)
    work.show(90)
    time.now += 8
    work.show(92)
    assert capfd.readouterr().err.splitlines() == ["teacher: 90/100 epochs", "teacher: 92/100 epochs  32 s left"]


def test_what_takes_no_second_is_not_worth_a_word(time: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    work = Progress(2, "parts", patient=True)
    work.show(1)
    work.close()
    assert capfd.readouterr().err == ""
    slow = Progress(2, "parts", patient=True)
    time.now += 3
    slow.show(1)
    assert capfd.readouterr().err == "1/2 parts  3 s left\n"


def test_quiet_work_still_writes_its_log(
    time: Clock, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lra"):
        work = Progress(2, "parts", quiet=True)
        work.show(0)
        work.done = 2
        work.close()
    assert capfd.readouterr().err == ""
    assert [record.message for record in caplog.records] == ["0/2 parts", "2/2 parts"]


@pytest.mark.parametrize(("columns", "variable", "bar"), [(80, None, True), (0, None, False), (80, "0", False)])
def test_a_bar_needs_columns(
    terminal: Callable[[int], Terminal],
    monkeypatch: pytest.MonkeyPatch,
    time: Clock,
    columns: int,
    variable: str | None,
    bar: bool,
) -> None:
    shown = terminal(columns)
    if variable is not None:
        monkeypatch.setenv("COLUMNS", variable)
    assert drawable() == bar
    work = Progress(10, "parts", "washing")
    work.show(0)
    time.now += PACE
    work.show(5)
    work.close()
    text = shown.shown()
    assert "washing: 5/10 parts  10 s left" in text
    assert ("\r" in text.replace("\r\n", "\n")) == bar, "lines end, a bar is written over"
    assert ("50%|" in text) == bar


def test_a_terminal_without_a_cursor_gets_lines(
    terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(80)
    monkeypatch.setenv("TERM", "dumb")
    assert not drawable()


def test_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work goes on, where ``| head`` has closed its end."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        Progress(2, "parts").show(1)
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            print("the pipe is indeed broken", file=gone, flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


@pytest.mark.parametrize(("seconds", "said"), [(7, "7 s"), (119, "119 s"), (120, "2 min"), (9000, "2.5 h")])
def test_a_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_a_run_says_where_it_is_within_an_experience(
    lra_bench: Bench, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step of any optimiser, with the time left, and before the first evaluation; in the log too."""
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "PACE", 0.0)
    batches = ("--set", "synthesis.images=16", "--set", "synthesis.steps=7", "--set", "synthesis.warmup=1")
    method = ("--method", "zskd", "--replay", "pool", *batches)
    done = lra_bench("run", "--out", tmp_path, *tiny, *method)
    assert done.code == 0, done.err
    # What is loaded, if nothing has loaded it before, is said before there is a log.
    lines = [line for line in done.err.splitlines() if not line.startswith("loading ")]
    started = lines.index("0/10 experiences")
    assert lines[started + 1].startswith("0/10 experiences  generator step 1/14  ")
    assert lines[started + 14].startswith("0/10 experiences  generator step 14/14  ")
    assert lines[started + 15].startswith("0/10 experiences  student step 1/20  ")
    assert any(line.startswith("3/10 experiences  generator step 5/7  accuracy") for line in lines)
    inside = [line for line in lines[started + 1 : -1] if line.split("/")[0] != "10"]
    assert all(line.endswith(" left") for line in inside), inside
    (log,) = tmp_path.rglob("log.txt")
    logged = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    assert [line for line in logged if line in set(lines)] == lines, "from the first line on, the teacher's too"


def test_steps_of_optimisers_are_watched_only_meanwhile() -> None:
    weights = torch.nn.Parameter(torch.zeros(1))
    optimiser, seen = torch.optim.SGD([weights], lr=0.1), []
    weights.grad = torch.ones(1)
    with progress.at_steps(seen.append):
        optimiser.step()
    optimiser.step()
    assert seen == [optimiser]


def test_what_is_loaded_is_told_unless_it_is_there(
    terminal: Callable[[int], Terminal], capfd: pytest.CaptureFixture[str]
) -> None:
    with progress.loading("sys", "no_such_library", "os"):
        pass
    with progress.loading("sys", "os"):
        pass
    assert capfd.readouterr().err == "loading no_such_library\n"
    shown = terminal(80)
    with progress.loading("sys", "no_such_library", "os"):
        assert shown.shown() == "loading no_such_library\r"
    with progress.loading("sys", "os"):
        pass
    assert shown.shown() == progress.ERASE, "and is not left behind"


def test_increments_say_where_they_are(
    lra_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """While a generator is trained too, which is most of the time."""
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "PACE", 0.0)
    small = ("--steps", 3, "--experiences", 2, "--set", "generator_steps=4", "--set", "generator_batch=8")
    done = lra_bench("increment", "--model", "resnet8", *small, "--out", tmp_path)
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("generative: ")]
    assert lines[0] == "generative: 0/10 steps"
    assert lines[1].startswith("generative: 1/10 steps  experience 1/2  ")
    assert [line.split()[1] for line in lines[1:]] == [f"{n}/10" for n in [*range(1, 11), 10]]
    assert all(line.endswith(" left") for line in lines[1:-2])
    assert "after 1/2 experiences" in done.err


def test_tasks_are_named_as_they_begin(
    lra_bench: Bench, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tasks.yaml"
    settings = dict(pair.split("=") for pair in tiny[7::2])
    shared = {"teacher": "mlp", "student": "mlp", "steps": 4, "method": "predfkd", "replay": "none"}
    sets = {"set": {key: yaml.safe_load(value) for key, value in settings.items()}}
    tasks = {"tasks": [{"name": "low", "dataset": "digits-0-4"}, {"name": "high", "dataset": "digits-5-9"}]}
    file.write_text(yaml.safe_dump(shared | sets | tasks))
    done = lra_bench("tasks", file, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    told = [line for line in done.err.splitlines() if line.startswith("task ")]
    assert told == ["task 1/2 'low', reuse anew, seed 0", "task 2/2 'high', reuse anew, seed 0"]
