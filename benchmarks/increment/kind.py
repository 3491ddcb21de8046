"""The kind of run that learns classes a few at a time: ``lra-bench increment``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import sha256
from lra.benchmarks.increment.configuration import (
    FLAGS,
    PREFIX,
    IncrementConfig,
    checked,
    configuration,
    data_of,
    figures,
    importing,
    restored,
    stored_configuration,
)
from lra.benchmarks.progress import Introduction
from lra.benchmarks.records import INCREMENT
from lra.benchmarks.runs.kind import Cell, Kind, Prepared, Tracker, Tree, Trial, going_on, parted
from lra.benchmarks.runs.machine import threads_for
from lra.benchmarks.setup.config import Identity
from lra.benchmarks.setup.networks import network_size
from lra.benchmarks.setup.places import moved, placed_data

if TYPE_CHECKING:
    from lra.benchmarks.increment.learning import Learning
    from lra.benchmarks.runs.processes import Processes
    from lra.benchmarks.runs.run_folder import RunFolder


class Increment(Kind):
    """Runs of an `IncrementConfig`."""

    name = INCREMENT
    flags = FLAGS

    def of_cell(self, cell: Cell, base: Path | None = None) -> IncrementConfig:
        """The configuration of a combination."""
        flags, settings = parted(cell)
        meta, file = flags.pop("meta", None), flags.pop("config", None)
        config = configuration(flags, (), meta, None if file is None else Path(str(file)), base, settings)
        checked(config)
        return config

    def stored(self, folder: Path) -> IncrementConfig:
        """The configuration that ``folder`` was made with."""
        return stored_configuration(folder)

    def trusted(self, tree: Tree) -> IncrementConfig:
        """A configuration of this program's own."""
        return importing(restored(tree), trusted=True)

    def threads(self, config: IncrementConfig) -> int:
        """The threads of a run, by its network and its minibatch."""
        work = network_size("--model", config.model, data_of(config)).work * config.options.minibatch
        return config.threads or threads_for(work, config.device)

    def identity(self, config: IncrementConfig, digest: Callable[[Path], str] = sha256) -> Identity | None:
        """Settings, data and code; ``None`` where the data are not there."""
        data = checked(config)
        return config.identity() if data.present() else None

    def require(self, config: IncrementConfig) -> None:
        """Refuse data that are not there."""
        data_of(config).require()

    def notes(self, config: IncrementConfig) -> Iterable[str]:
        """How the images got their size, what was passed over, and what others print."""
        return [*checked(config).notes, *figures(config)]

    def cost(self, config: IncrementConfig) -> dict[str, int]:
        """Steps and experiences."""
        return {"student_steps": config.student_steps, "experiences": config.experiences}

    def prepare(
        self,
        config: IncrementConfig,
        introduction: Introduction,
        group: Processes,
        trackers: Sequence[Tracker],
        quiet: bool,
    ) -> Prepared:
        """Load the data."""
        from lra.benchmarks.increment.learning import Learning, sized

        if group.count > 1:
            raise UsageError(f"lra-bench {INCREMENT} is for one process: start it without torchrun")
        data = checked(config)
        config = sized(config, data, self.threads(config))
        for note in self.notes(config):
            introduction.add(note)

        def build(folder: RunFolder) -> Learning:
            return Learning(config, folder, data, quiet)

        return Prepared(config, config.label, config.identity(), build)

    def named(self, config: IncrementConfig, made: dict[str, Any], train: bool = True) -> tuple[str, Identity] | None:
        """Label and identity of a run, by its data; several runs share nothing."""
        checked(config).require()
        return config.label, config.identity()

    def trial(
        self, config: IncrementConfig, out: Path, began: float | None = None, introduction: Introduction | None = None
    ) -> Trial:
        """Do a few steps of every sort, and say what all of them would take."""
        from lra.benchmarks.increment.learning import trial

        return trial(config, out, self.threads(config), began, introduction)

    def places(self, tree: Tree, base: Path) -> Mapping[str, Any]:
        """The places of data and code."""
        name = str(tree.get("benchmark", "")).removeprefix(PREFIX)
        return {"benchmark": PREFIX + placed_data(name, [base]), "code": tree.get("code")}

    def moved(self, tree: Tree, file: Path) -> str | None:
        """The command with ``--benchmark``, if the data are not there."""
        found = moved({"data": {"name": str(tree["benchmark"]).removeprefix(PREFIX)}})
        return going_on(self.name, file, found and found.replace("--dataset ", f"--benchmark {PREFIX}"))


INCREMENTS = Increment()
