"""What a run is, whatever is learnt in it: what a kind of run gives to the one runner, the sweep and the report.

``lra-bench run`` and ``quantize`` distil (`lra.benchmarks.runs.distillation`), ``increment`` learns classes a few at a
time (`lra.benchmarks.increment.kind`), ``tasks`` distils teachers one after another (`lra.benchmarks.tasks.kind`). A
kind says what its configurations are, what makes a run the one it is, and how one is prepared, done, estimated and
shown; folder, lock, log, threads, interruption, and what is done with finished runs are the runner's
(`lra.benchmarks.runs.runner`). Kinds are declared without torch, which is imported where a run is prepared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from lra.benchmarks.errors import UsageError, suggestion
from lra.benchmarks.files import sha256
from lra.benchmarks.records import again
from lra.benchmarks.setup.config import Identity, RunConfig

if TYPE_CHECKING:
    from lra.benchmarks.progress import Introduction
    from lra.benchmarks.runs.processes import Processes
    from lra.benchmarks.runs.run_folder import RunFolder

Tree = dict[str, Any]
"""A configuration as plain data."""


Cell = dict[str, Any]
"""A combination of a grid: flags by name, and settings as ``set:section.key``."""


def parted(cell: Cell) -> tuple[Cell, Cell]:
    """The flags of a combination, and its settings, by key."""
    flags = {key: value for key, value in cell.items() if not key.startswith("set:")}
    return flags, {key.removeprefix("set:"): value for key, value in cell.items() if key not in flags}


def going_on(kind: str, file: Path, option: str | None) -> str | None:
    """How to go on with the run whose configuration is the ``file`` in its folder, with an ``option``, if there is one.

    Such an option says where something is now.
    """
    return None if option is None else f"continue with {again(kind, file)} {option} --out {file.parents[3]}"


Tracker = Callable[[Path, RunConfig], Any]
"""Makes an Avalanche logger that writes into a run folder from now on."""


class Configuration(Protocol):
    """All that determines a run's result, the seed included, and where it is computed."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""

    @property
    def device(self) -> str:
        """Where to compute."""

    @property
    def threads(self) -> int | None:
        """Torch threads; ``None``: by the size of the networks."""

    @property
    def student_steps(self) -> int:
        """Steps that the learner takes in all."""

    @property
    def provisional(self) -> str:
        """A fingerprint by names, for configurations whose data are not looked at yet."""

    def tree(self) -> Tree:
        """The configuration as plain data, to be run again; ``kind`` names the kind, unless it is `DEFAULT`."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some options changed."""


class Work(Protocol):
    """A run that is built and can be done."""

    def open(self, begin: Callable[[], None]) -> None:
        """Start the folder, or take up what is saved there; ``begin`` is called when nothing is refused any more."""

    def complete(self) -> None:
        """Train to the end, saving now and then, and write ``result.json``.

        Raises:
            LraError: if it cannot be done, or was stopped.
        """


@dataclass(frozen=True)
class Prepared:
    """A run whose data, and whatever else it starts from, are there.

    Attributes:
        config: with the device and the threads it takes.
        label: first part of its folder's path, for people.
        identity: what makes it the run it is.
        build: makes its parts, to be done in a folder; refuses what cannot be done before anything is written.
    """

    config: Any
    label: str
    identity: Identity
    build: Callable[[RunFolder], Work]


@dataclass(frozen=True)
class Trial:
    """What the first steps of a run say of it.

    Attributes:
        start_up: seconds until its first step: data, networks, and the teacher's test where it is there.
        teacher: seconds to train the teacher, 0 if that is done.
        seconds: of its own, from the first step to the last evaluation; ``None`` if it cannot be told.
        basis: where that is from, or why it cannot be told.
        peak_memory_mb: most memory taken so far, of the GPU or of this process.
        parameters: of each network, by its name.
        threads: that torch takes.
    """

    start_up: float
    teacher: float
    seconds: float | None
    basis: str
    peak_memory_mb: float
    parameters: dict[str, int]
    threads: int

    def record(self) -> dict[str, Any]:
        """The trial as plain data, with the ``total`` in seconds."""
        total = None if self.seconds is None else self.start_up + self.teacher + self.seconds
        return asdict(self) | {"total": total}


class Kind(ABC):
    """A kind of run; ``config`` is always one of its own configurations.

    Attributes:
        name: in a grid, and in what a run stores.
        flags: what a grid may name: the flags of its command, but for ``--threads``, which is the sweep's.
    """

    name: str
    flags: tuple[str, ...]

    @abstractmethod
    def of_cell(self, cell: Cell, base: Path | None = None) -> Configuration:
        """The configuration of a combination of a grid in the folder ``base``.

        Raises:
            UsageError: as for its command.
        """

    @abstractmethod
    def stored(self, folder: Path) -> Configuration:
        """The configuration that ``folder`` was made with.

        Raises:
            UsageError: if it is none, or what it names has changed since.
        """

    @abstractmethod
    def trusted(self, tree: Tree) -> Configuration:
        """A configuration of this program's own from plain data: the modules it names are imported from where it says.

        Raises:
            UsageError: if it is none.
        """

    @abstractmethod
    def threads(self, config: Any) -> int:
        """The threads a run takes, whether its configuration says so or its networks ask for them.

        Raises:
            LraError: if a network cannot be built.
        """

    @abstractmethod
    def identity(self, config: Any, digest: Callable[[Path], str] = sha256) -> Identity | None:
        """What makes a run the one it is, by content; ``None`` where that cannot be known before it is prepared.

        Raises:
            LraError: for data that are not there, or not as they must be.
        """

    @abstractmethod
    def require(self, config: Any) -> None:
        """Raise `MissingInput` for data that are not there, before anything slow is done."""

    def introduction(self, config: Any) -> Iterable[str]:
        """Lines on where its settings are from."""
        return ()

    @abstractmethod
    def notes(self, config: Any) -> Iterable[str]:
        """What there is to say about its data.

        Raises:
            LraError: for a configuration that makes no sense.
        """

    @abstractmethod
    def cost(self, config: Any) -> dict[str, int]:
        """What a run takes at least, in numbers by their names."""

    @abstractmethod
    def prepare(
        self, config: Any, introduction: Introduction, group: Processes, trackers: Sequence[Tracker], quiet: bool
    ) -> Prepared:
        """Load the data, and get whatever the run starts from.

        Args:
            config: on the device of this process.
            introduction: what is said of it.
            group: the processes it is done by.
            trackers: further records to keep.
            quiet: no progress on stderr.

        Raises:
            LraError: for everything that a user can mend.
        """

    @abstractmethod
    def named(self, config: Any, made: dict[str, Any], train: bool = True) -> tuple[str, Identity] | None:
        """Label and identity of one run of many.

        Args:
            config: of the run.
            made: what several runs share, such as a teacher, by `shared`; what is missing there is made, once.
            train: ``False`` gives ``None`` where that would take training.

        Raises:
            LraError: if it cannot be made, the same for all that share it.
        """

    def shared(self, config: Any) -> str:
        """Names what is made once for several runs; empty if there is nothing such."""
        return ""

    def kept(self, config: Any) -> Iterable[Path]:
        """The files of the user's cache that a run reads: teachers trained here.

        Raises:
            MissingInput: if that cannot be told without data that are not there.
        """
        return ()

    @abstractmethod
    def trial(
        self, config: Any, out: Path, began: float | None = None, introduction: Introduction | None = None
    ) -> Trial:
        """Build a run that would go under ``out``, do its first steps and say what all of it would take.

        The ``introduction`` is said once it is built. ``began`` is `time.perf_counter` at the start, if not now.

        Raises:
            LraError: for whatever the run itself would refuse.
        """

    @abstractmethod
    def places(self, tree: Tree, base: Path) -> Mapping[str, Any]:
        """The options of a configuration stored in the folder ``base`` that say where something lies."""

    @abstractmethod
    def moved(self, tree: Tree, file: Path) -> str | None:
        """What to do, if something that the configuration in a ``file`` of a run folder refers to is not there."""

    def write_report(self, folder: Path) -> Path:
        """Write ``report.html`` and return its path."""
        from lra.benchmarks.reports.report import write_report

        return write_report(folder)


DEFAULT = "run"
"""The kind that a configuration need not name."""

KINDS = {
    DEFAULT: "lra.benchmarks.runs.distillation:DISTILLATION",
    "increment": "lra.benchmarks.increment.kind:INCREMENTS",
    "tasks": "lra.benchmarks.tasks.kind:TASKS_IN_TURN",
}
"""Where each kind is, by its name."""


def kind_named(name: object) -> Kind:
    """The kind of that name.

    Raises:
        UsageError: if there is none.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise UsageError(f"unknown kind of run {name!r}; {suggestion(str(name), KINDS)}")
    module, _, attribute = KINDS[name].partition(":")
    found = getattr(import_module(module), attribute)
    assert isinstance(found, Kind)
    return found


def kind_of(config: Configuration) -> Kind:
    """The kind that ``config`` is of."""
    return kind_named(config.tree().get("kind", DEFAULT))
