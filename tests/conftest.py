"""What every test can count on: its threads, a cache of its own, no network; and small things to build runs from."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from lra.benchmarks import progress

IMAGE = (1, 8, 8)
CLASSES = 10
THREADS = int(os.environ.get("LRA_TEST_THREADS", "1"))
"""Of torch in every test, and of the commands that tests start."""


@pytest.fixture(scope="session", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep tests off the network and away from the user's cache; gives the cache in its place."""
    torch.set_num_threads(THREADS)

    def refuse(self: socket.socket, address: Any) -> None:
        # Unix sockets stay: multiprocessing talks over them.
        if not isinstance(address, (str, bytes)):
            raise AssertionError(f"a test connects to {address}")
        connect(self, address)

    connect = socket.socket.connect
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRA_CACHE", str(cache))
        patch.setenv("LRA_DATA", str(cache / "data"))
        patch.setenv("OMP_NUM_THREADS", str(THREADS))
        patch.setattr(socket.socket, "connect", refuse)
        # All lines of progress but the first depend on how fast a machine is.
        patch.setattr(progress, "FIRST", 1e9)
        yield cache


@pytest.fixture(autouse=True)
def threads() -> None:
    """Begin with `THREADS`, whatever the test before left."""
    torch.set_num_threads(THREADS)


@pytest.fixture
def progress_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be as many lines of progress as there are for a user."""
    monkeypatch.setattr(progress, "FIRST", 1.0)


@pytest.fixture
def double() -> Iterator[None]:
    """Build everything in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def student() -> nn.Module:
    """A small convolutional student with BatchNorm, smooth so that second derivatives are."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(256, CLASSES)
    )


@pytest.fixture
def teacher() -> Any:
    """A random teacher of 8x8 images."""
    from lra.problem import Teacher

    torch.manual_seed(2)
    return Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, CLASSES)))


@pytest.fixture
def make_stream(teacher: Any) -> Callable[..., Any]:
    """Build a stream of a small adversarial generator; always the same one."""
    from lra.strategies.stream import SynthesisStream
    from lra.synthesis.online import OnlineGenerator
    from lra.synthesis.terms import Disagreement, OneHot

    def make(length: int = 3, steps: int = 2, batch_size: int = 16, last_steps: int | None = None) -> SynthesisStream:
        torch.manual_seed(3)
        teacher.queries = 0
        generator = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.Sigmoid(), nn.Unflatten(1, IMAGE))
        synthesizer = OnlineGenerator(
            generator,
            torch.optim.Adam(generator.parameters(), lr=0.01),
            [OneHot(1.0), Disagreement(1.0)],
            teacher,
            latent=8,
            batch_size=batch_size,
            sampling_mode="train",
        )
        return SynthesisStream(synthesizer, teacher, length, steps, batch_size, last_steps)

    return make


@pytest.fixture
def make_strategy() -> Callable[..., Any]:
    """Build a strategy around a student, silent unless given an evaluator."""
    from lra.distances import l1
    from lra.distillation.objective import Objective
    from lra.strategies.evaluation import QuietEvaluation
    from lra.strategies.strategy import DataFreeDistillation

    def make(
        model: nn.Module, plugins: Sequence[Any] = (), evaluator: Any = None, batch_size: int = 16, **kwargs: Any
    ) -> DataFreeDistillation:
        return DataFreeDistillation(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
            objective=Objective(l1),
            train_mb_size=batch_size,
            plugins=list(plugins),
            evaluator=evaluator or QuietEvaluation(),
            **kwargs,
        )

    return make


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a run of seconds on any images: ten experiences of two steps, an evaluation every second one."""
    settings = {
        "method": "predfkd",  # Needs no BatchNorm; --method overrides it.
        "data.size": 8,
        "teacher.epochs": 3,
        "schedule.batch_size": 16,
        "schedule.steps_per_experience": 2,
        "schedule.experiences_per_epoch": 2,
        "evaluation.probe_size": 16,
        "evaluation.samples": 4,
    }
    return [
        *("--teacher", "mlp", "--student", "mlp", "--steps", "20"),
        *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
    ]


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def lra_bench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call ``lra-bench`` in this process."""
    from lra.benchmarks import cli

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lra-bench", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Outcome(int(left.value.code or 0), *capfd.readouterr())

    return call


class Killed(BaseException):
    """As if by SIGKILL: nothing is caught or saved on the way out."""


@pytest.fixture
def killed(lra_bench: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Begin a `tiny` run in an empty place, kill it and give its folder.

    It is saved after the third and fifth experience, and killed in the middle of the eighth, after an evaluation that
    is not yet saved.
    """
    from lra.benchmarks.runs import training
    from lra.benchmarks.runs.training import Training

    kept, save = Training._keep, Training._save

    def seldom(self: Training) -> None:
        if self.experiment.stream.position in (3, 5):
            save(self)

    def dying(self: Training, record: dict[str, Any]) -> None:
        kept(self, record)
        if record["experience"] == 8:
            raise Killed

    def begin(*arguments: object) -> Path:
        place = Path(str(arguments[arguments.index("--out") + 1]))
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        with monkeypatch.context() as patch:
            patch.setattr(Training, "_save", seldom)
            patch.setattr(Training, "_keep", dying)
            with pytest.raises(Killed):
                lra_bench("run", *arguments)
        (checkpoint,) = place.rglob("checkpoint.pt")
        return checkpoint.parent

    return begin


@contextmanager
def plain_reports() -> Iterator[None]:
    """Leave the reports of runs at a word: drawing one is most of a tiny run's time."""

    def write(folder: Path) -> Path:
        (folder / "report.html").write_text("a report")
        return folder / "report.html"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lra.benchmarks.reports.report.write_report", write)
        yield


@pytest.fixture
def plain_report() -> Iterator[None]:
    """`plain_reports`, for a test that does not look at them."""
    with plain_reports():
        yield


@pytest.fixture(scope="module")
def plain_reports_of_the_module() -> Iterator[None]:
    """`plain_reports`, for a file none of whose tests looks at them, nor at those of its fixtures."""
    with plain_reports():
        yield


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a sweep's workers begin as copies of this process, which has imported everything; gives what begins them.

    That a fresh process does as well, and finds a user's code, is asked in test_user_code.py.
    """
    from lra.benchmarks.sweeps import engines

    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(engines.multiprocessing, "get_context", lambda name: context)
    # A copy holds this end of its pipe too, and so does not hear that nothing more will come.
    monkeypatch.setattr(engines, "LEAVE", 0.0)
    return context


@pytest.fixture(scope="session")
def command() -> str:
    """The installed ``lra-bench``."""
    return os.path.join(os.path.dirname(sys.executable), "lra-bench")
