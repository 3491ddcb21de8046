"""Disks that fill, folders that vanish, files that rot, numbers that explode: what was saved is kept, and goes on."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lra.benchmarks.files import read_checkpoint
from lra.benchmarks.runs import training
from lra.benchmarks.runs.training import Training
from lra.strategies.divergence import LIMIT, DivergenceGuard
from lra.synthesis.batches import Diverged

Bench = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("plain_report")


class Killed(BaseException):
    """As if by SIGKILL: nothing is caught or saved on the way out."""


@pytest.fixture
def bench(lra_bench: Bench, tiny: list[str], tmp_path: Path) -> Bench:
    """Do the tiny run, with more options."""
    return lambda *more: lra_bench("run", "--out", tmp_path / "runs", *tiny, "--replay", "memory", *more)


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every experience."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)


@pytest.fixture
def at_record(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Do something when the record of an experience has been written."""
    kept = Training._keep

    @contextmanager
    def change(experience: int, do: Callable[[Training], object]) -> Iterator[None]:
        def keep(self: Training, record: dict[str, Any]) -> None:
            kept(self, record)
            if record["experience"] == experience:
                do(self)

        with monkeypatch.context() as patch:
            patch.setattr(Training, "_keep", keep)
            yield

    return change


@pytest.fixture
def whole(bench: Bench, tmp_path: Path) -> dict[str, bytes]:
    """The files of a run that nothing happened to."""
    assert bench().code == 0
    (result,) = (tmp_path / "runs").rglob("result.json")
    contents = outcome(result.parent)
    shutil.rmtree(tmp_path / "runs")
    return contents


def outcome(folder: Path) -> dict[str, bytes]:
    names = ("metrics.jsonl", "student.safetensors", "forgetting.json", "confusion.json")
    return {name: (folder / name).read_bytes() for name in names}


def killed(self: Training) -> None:
    raise Killed


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The system refuses to write beyond so many bytes into a file: like a full disk, and as real."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_a_checkpoint(
    bench: Bench, lra_bench: Bench, whole: dict[str, bytes], saving: None, at_record: Any, tmp_path: Path
) -> None:
    with at_record(4, killed), pytest.raises(Killed):
        bench()
    (checkpoint,) = (tmp_path / "runs").rglob("checkpoint.pt")
    good = checkpoint.read_bytes()
    with no_file_above(len(good) // 2):
        done = bench()
    assert done.code == 75
    line = done.err.splitlines()[-1]
    assert f"cannot write {checkpoint}" in line
    assert "the file before it is kept" in line
    assert f"lra-bench resume {checkpoint.parent}" in line
    assert checkpoint.read_bytes() == good
    assert not list(checkpoint.parent.glob(".*.draft"))
    assert lra_bench("resume", checkpoint.parent).code == 0
    assert outcome(checkpoint.parent) == whole


def test_a_folder_that_can_no_longer_be_written_to(
    bench: Bench, lra_bench: Bench, whole: dict[str, bytes], saving: None, at_record: Any, tmp_path: Path
) -> None:
    """Permissions do not stop root, so a file takes the folder's place."""
    away = tmp_path / "away"

    def lose(self: Training) -> None:
        self.folder.path.rename(away)
        self.folder.path.write_text("no folder")

    with at_record(6, lose):
        done = bench()
    assert done.code == 75
    assert "cannot write" in done.err.splitlines()[-1]
    (place,) = (tmp_path / "runs").rglob("seed-0")
    place.unlink()
    away.rename(place)
    assert lra_bench("resume", place).code == 0
    assert outcome(place) == whole


def shortened(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def older(content: bytes) -> bytes:
    return content.replace(b"checkpoint 1\n", b"checkpoint 0\n", 1)


@pytest.mark.parametrize("harm", [shortened, flipped, older, lambda content: b""])
def test_a_checkpoint_that_rots(
    bench: Bench,
    lra_bench: Bench,
    whole: dict[str, bytes],
    saving: None,
    at_record: Any,
    tmp_path: Path,
    harm: Callable[[bytes], bytes],
) -> None:
    with at_record(6, killed), pytest.raises(Killed):
        bench()
    (last,) = (tmp_path / "runs").rglob("checkpoint.pt")
    before = last.with_name("checkpoint-before.pt")
    assert [read_checkpoint(file)["position"] for file in (before, last)] == [4, 5]
    good = before.read_bytes()
    for file in (last, before):
        file.write_bytes(harm(file.read_bytes()))
    done = lra_bench("resume", last.parent)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert all(str(file) in done.err for file in (last, before)), "and both are still there"

    before.write_bytes(good)
    done = lra_bench("resume", last.parent)
    assert done.code == 0
    reason = "was written by another version" if harm is older else "is "
    assert f"{last} {reason}" in done.err.splitlines()[0]
    assert "going on from the one before it" in done.err.splitlines()[0]
    assert outcome(last.parent) == whole


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda strategy: nn.init.constant_(strategy.model[-1].bias, float("nan")), r"loss \(its distance\) is nan"),
        (lambda strategy: nn.init.constant_(strategy.model[-1].bias, 2 * LIMIT), "the norm of the student's weights"),
        (
            lambda strategy: strategy.synthesis.origin_stream.synthesizer.generator[0].weight.data.fill_(2 * LIMIT),
            "the norm of the generator's weights",
        ),
        (
            lambda strategy: strategy.synthesis.origin_stream.synthesizer.generator[0].weight.data.fill_(float("nan")),
            "is nan",
        ),
    ],
)
def test_the_guard_names_what_diverged(
    make_stream: Any, make_strategy: Any, student: nn.Module, harm: Callable[[Any], Any], named: str
) -> None:
    from avalanche.core import SupervisedPlugin

    class Harm(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, **kwargs: object) -> None:
            if strategy.clock.train_exp_counter == 1:
                harm(strategy)

    stream = make_stream(length=4)
    guard = DivergenceGuard({"student": student, "generator": stream.synthesizer.generator})
    with pytest.raises(Diverged, match=named) as raised:
        make_strategy(student, [Harm(), guard]).train(stream)
    assert "student step" in str(raised.value)
    assert stream.position < 3, "before the next experience is over"


def test_healthy_numbers_pass_the_guard(make_stream: Any, make_strategy: Any, student: nn.Module) -> None:
    make_strategy(student, [DivergenceGuard({"student": student})]).train(make_stream(length=3))


def test_a_divergence_stops_the_run_and_says_where_it_was_good(bench: Bench, saving: None, tmp_path: Path) -> None:
    done = bench("--set", "student.lr=1e20")
    assert done.code == 1
    line = done.err.splitlines()[-1]
    assert "diverged: the" in line
    assert "at student step" in line
    assert "last good checkpoint: none yet" in line
    assert "--on-divergence rollback" in line
    assert not list((tmp_path / "runs").rglob("result.json"))
    done = bench("--set", "student.lr=1e20", "--on-divergence", "rollback")
    assert done.code == 1
    assert "after 3 rollbacks" in done.err.splitlines()[-1]


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training explodes in the seventh experience, unless the rate has been lowered."""

    def explode(self: DivergenceGuard, strategy: Any, **kwargs: object) -> None:
        group = strategy.optimizer.param_groups[0]
        if strategy.clock.train_exp_counter == 6 and group["initial_lr"] > 0.03:
            raise Diverged("the student's loss is inf at student step 12")

    monkeypatch.setattr(DivergenceGuard, "before_update", explode)


def test_a_rollback_goes_on_at_half_the_rate_and_is_recorded(
    bench: Bench, lra_bench: Bench, fragile: None, at_record: Any, tmp_path: Path
) -> None:
    done = bench("--on-divergence", "rollback")
    assert done.code == 0, done
    assert "back to experience 6" in done.err
    (result,) = (tmp_path / "runs").rglob("result.json")
    rollbacks = json.loads(result.read_text())["rollbacks"]
    assert [(r["to_experience"], r["student_lr_times"]) for r in rollbacks] == [(6, 0.5)]
    assert "loss is inf at student step 12" in rollbacks[0]["cause"]
    whole = outcome(result.parent)
    assert {path.name for path in result.parent.glob("*.pt")} == set()

    # Killed after the rollback, it ends the same.
    result.unlink()
    with at_record(8, killed), pytest.raises(Killed):
        bench("--on-divergence", "rollback")
    assert lra_bench("resume", result.parent).code == 0
    assert outcome(result.parent) == whole
    assert json.loads(result.read_text())["rollbacks"] == rollbacks

    # Stopped first, and told afterwards to roll back, it gets over it too, from its last checkpoint or its start.
    result.unlink()
    assert bench().code == 1
    assert lra_bench("resume", result.parent, "--on-divergence", "rollback").code == 0
