"""The interface of a kind of run, for the one runner, the sweep and the report.

``lra-bench run`` and ``quantize`` distil (`lra.benchmarks.runs.distillation`), ``increment`` learns classes a few at a
time (`lra.benchmarks.increment.kind`), ``tasks`` distils teachers one after another (`lra.benchmarks.tasks.kind`). A
kind defines its configurations, what identifies a run, and how one is prepared, done, estimated and shown; folder,
lock, log, threads, interruption and the handling of finished runs are the runner's (`lra.benchmarks.runs.runner`).
Kinds are declared without torch, which is imported where a run is prepared.
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
    """How to resume the run whose configuration is the ``file`` in its folder, with an ``option``, if given.

    Such an option says where something is now.
    """
    return None if option is None else f"continue with {again(kind, file)} {option} --out {file.parents[3]}"


Tracker = Callable[[Path, RunConfig], Any]
"""Makes an Avalanche logger that writes into a run folder from now on."""


class Configuration(Protocol):
    """All that determines a run's result, including the seed, and where it is computed."""

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
        """Steps of the learner in all."""

    @property
    def provisional(self) -> str:
        """A fingerprint by names, for configurations whose data have not been read yet."""

    def tree(self) -> Tree:
        """The configuration as plain data, to be run again; ``kind`` names the kind, unless it is `DEFAULT`."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some options changed."""


class Work(Protocol):
    """A run that is built and ready."""

    def open(self, begin: Callable[[], None]) -> None:
        """Start the folder, or resume what is saved there; ``begin`` is called once nothing can be refused any more."""

    def complete(self) -> None:
        """Train to the end, saving regularly, and write ``result.json``.

        Raises:
            LraError: if it fails or is stopped.
        """


@dataclass(frozen=True)
class Prepared:
    """A run whose data, and everything else it starts from, are available.

    Attributes:
        config: with the device and number of threads it uses.
        label: first part of its folder's path, for people.
        identity: what identifies it.
        build: makes its parts for a folder; refuses what cannot be done before anything is written.
    """

    config: Any
    label: str
    identity: Identity
    build: Callable[[RunFolder], Work]


@dataclass(frozen=True)
class Trial:
    """An estimate of a run from its first steps.

    Attributes:
        start_up: seconds until its first step: data, networks, and the test of the teacher if it exists.
        teacher: seconds to train the teacher, 0 if that is done.
        seconds: of the run itself, from the first step to the last evaluation; ``None`` if unknown.
        basis: what the estimate is based on, or why there is none.
        peak_memory_mb: peak memory so far, of the GPU or of this process.
        parameters: number of each network's, by name.
        threads: used by torch.
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
        name: in grids and stored runs.
        flags: those allowed in a grid: the flags of its command except ``--threads``, which belongs to the sweep.
    """

    name: str
    flags: tuple[str, ...]

    @abstractmethod
    def of_cell(self, cell: Cell, base: Path | None = None) -> Configuration:
        """The configuration for a combination of a grid in the folder ``base``.

        Raises:
            UsageError: as for its command.
        """

    @abstractmethod
    def stored(self, folder: Path) -> Configuration:
        """The configuration of the run in ``folder``.

        Raises:
            UsageError: if it is invalid, or what it names has changed since.
        """

    @abstractmethod
    def trusted(self, tree: Tree) -> Configuration:
        """A configuration from this program's own plain data: its modules are imported from the folders it states.

        Raises:
            UsageError: if it is invalid.
        """

    @abstractmethod
    def threads(self, config: Any) -> int:
        """The number of threads of a run, from its configuration or by its networks.

        Raises:
            LraError: if a network cannot be built.
        """

    @abstractmethod
    def identity(self, config: Any, digest: Callable[[Path], str] = sha256) -> Identity | None:
        """What identifies a run, by content; ``None`` if that is unknown before it is prepared.

        Raises:
            LraError: for missing or invalid data.
        """

    @abstractmethod
    def require(self, config: Any) -> None:
        """Raise `MissingInput` for missing data, before anything slow is done."""

    def introduction(self, config: Any) -> Iterable[str]:
        """Lines on the origin of its settings."""
        return ()

    @abstractmethod
    def notes(self, config: Any) -> Iterable[str]:
        """Notes on its data.

        Raises:
            LraError: for an inconsistent configuration.
        """

    @abstractmethod
    def cost(self, config: Any) -> dict[str, int]:
        """The minimal cost of a run: numbers by name."""

    @abstractmethod
    def prepare(
        self, config: Any, introduction: Introduction, group: Processes, trackers: Sequence[Tracker], quiet: bool
    ) -> Prepared:
        """Load the data, and everything else the run starts from.

        Args:
            config: on the device of this process.
            introduction: lines printed about it.
            group: the processes that do it.
            trackers: further records to keep.
            quiet: no progress on stderr.

        Raises:
            LraError: for everything that a user can fix.
        """

    @abstractmethod
    def named(self, config: Any, made: dict[str, Any], train: bool = True) -> tuple[str, Identity] | None:
        """Label and identity of one run among many.

        Args:
            config: of the run.
            made: what several runs share, such as a teacher, by `shared`; what is missing there is made once.
            train: ``False`` gives ``None`` where that would need training.

        Raises:
            LraError: if it cannot be made; the same error for all runs that share it.
        """

    def shared(self, config: Any) -> str:
        """A name for what is made once for several runs; empty if there is nothing."""
        return ""

    def kept(self, config: Any) -> Iterable[Path]:
        """The files in the user's cache that a run reads: teachers trained here.

        Raises:
            MissingInput: if that needs data that are missing.
        """
        return ()

    @abstractmethod
    def trial(
        self, config: Any, out: Path, began: float | None = None, introduction: Introduction | None = None
    ) -> Trial:
        """Build a run as if under ``out``, do its first steps and estimate the cost of all of it.

        The ``introduction`` is printed once it is built. ``began`` is `time.perf_counter` at the start, if not now.

        Raises:
            LraError: for whatever the run itself would refuse.
        """

    @abstractmethod
    def places(self, tree: Tree, base: Path) -> Mapping[str, Any]:
        """The options of a configuration stored in the folder ``base`` that are places of files."""

    @abstractmethod
    def moved(self, tree: Tree, file: Path) -> str | None:
        """What to do if something to which the configuration in a ``file`` of a run folder refers is missing."""

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
"""The place of each kind in the code, by its name."""


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
