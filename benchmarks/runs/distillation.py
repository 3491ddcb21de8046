"""The kind of run that distils a teacher into a student: ``lra-bench run`` and ``quantize``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.benchmarks.errors import LraError, MissingInput, Resumable, UsageError, concerning
from lra.benchmarks.files import sha256
from lra.benchmarks.progress import Introduction, tell
from lra.benchmarks.records import GENERATOR, SYNTHETIC
from lra.benchmarks.runs.kind import DEFAULT, Cell, Kind, Prepared, Tracker, Tree, Trial, going_on, parted
from lra.benchmarks.runs.machine import refuse_device, refuse_precision, slow_precision, threads_of
from lra.benchmarks.runs.run_folder import difference, recorded
from lra.benchmarks.setup.config import Identity, RunConfig
from lra.benchmarks.setup.datasets import DataSet, data_of
from lra.benchmarks.setup.flags import FLAGS
from lra.benchmarks.setup.layers import checked, expanded
from lra.benchmarks.setup.places import data_kind, data_label, moved, placed_layer, places_of
from lra.benchmarks.setup.presets import announced, unlike
from lra.benchmarks.setup.resolution import configuration, file_layer, importing, origin, restored
from lra.benchmarks.setup.teachers import obtain, stand_in, teacher_file, untrained
from lra.benchmarks.setup.user_code import identities

if TYPE_CHECKING:
    from lra.benchmarks.runs.processes import Processes
    from lra.benchmarks.runs.rollback import RetreatingRun
    from lra.benchmarks.runs.run_folder import RunFolder
    from lra.benchmarks.setup.teachers import TrainedTeacher


class Distillation(Kind):
    """Runs of a `RunConfig`."""

    name = DEFAULT
    flags = tuple(flag.name for flag in FLAGS if flag.name != "threads")

    def of_cell(self, cell: Cell, base: Path | None = None, code: Mapping[str, str] | None = None) -> RunConfig:
        """The configuration of a combination; ``code`` as `configuration` takes it."""
        flags, settings = parted(cell)
        return configuration(**flags, set=settings, base=base, code=code)

    def stored(self, folder: Path) -> RunConfig:
        """The configuration that ``folder`` was made with."""
        return stored_configuration(folder)

    def trusted(self, tree: Tree) -> RunConfig:
        """A configuration that this program wrote itself."""
        config = checked(tree)
        return importing(config, [{"code": config.code or {}}])

    def threads(self, config: RunConfig) -> int:
        """The number of threads of a run, by its largest network and its batch."""
        return threads_of(config, data_of(config.data))

    def identity(self, config: RunConfig, digest: Callable[[Path], str] = sha256) -> Identity | None:
        """Settings, teacher, test set, code and what it starts from; ``None`` while its teacher is missing."""
        data = data_of(config.data)
        try:
            teacher = teacher_file(config.teacher, data)
        except MissingInput:  # No training data; whether they are needed is not known here.
            return None
        return identity_of(config, digest(teacher), data) if teacher.is_file() else None

    def require(self, config: RunConfig) -> None:
        """Refuse a missing test set."""
        if config.data.test:
            data_of(config.data).require()

    def introduction(self, config: RunConfig) -> Iterable[str]:
        """What it replays, and the scale or preset that its settings come from."""
        return announced(config)

    def notes(self, config: RunConfig) -> Iterable[str]:
        """How the images got their size, what was skipped, and whether the precision only takes time."""
        return [*data_of(config.data).notes, *slow_precision(config)]

    def cost(self, config: RunConfig) -> dict[str, int]:
        """Steps, experiences and images."""
        steps, schedule = config.student_steps, config.schedule
        images = {"experiences": schedule.experiences, "student_images": steps * schedule.batch_size}
        return {"student_steps": steps} | images

    def prepare(
        self,
        config: RunConfig,
        introduction: Introduction,
        group: Processes,
        trackers: Sequence[Tracker],
        quiet: bool,
    ) -> Prepared:
        """Load the test set, and load or train the teacher."""
        from lra.benchmarks.runs.memory import sized
        from lra.benchmarks.runs.rollback import RetreatingRun
        from lra.benchmarks.runs.training import Training, built

        refuse_precision(config)
        data = data_of(config.data)
        config = sized(config, data)
        for note in self.notes(config):
            introduction.add(note)
        test = data.load("test") if config.data.test else None
        if untrained(config.teacher, data):  # Which takes long: whether the rest can be built is tried before.
            built(group.share(config), data, stand_in(config, data), None, lambda record: None)
        hushed = quiet or group.rank > 0
        teacher = group.in_turn(lambda: obtain(config.teacher, data, test, config.device, hushed, introduction))
        if other := unlike(config, teacher.name):
            introduction.add(other)

        def build(folder: RunFolder) -> RetreatingRun:
            return RetreatingRun(lambda: Training(config, folder, data, teacher, test, trackers, quiet, group))

        return Prepared(config, label(config, teacher.name), identity_of(config, teacher.sha256, data), build)

    def named(self, config: RunConfig, made: dict[str, Any], train: bool = True) -> tuple[str, Identity] | None:
        """Name a run by its teacher, which is loaded, or trained, once for all runs that share it."""
        key = self.shared(config)
        if key not in made:
            try:
                made[key] = _teacher(config, train, made)
            except Resumable:
                raise
            except LraError as error:
                made[key] = error
        found = made[key]
        if isinstance(found, LraError):
            raise found
        return None if found is None else (label(config, found[0].name), identity_of(config, found[0].sha256, found[1]))

    def shared(self, config: RunConfig) -> str:
        """Teacher and data."""
        return f"{config.teacher.model_dump_json()} {config.data.model_dump_json()}"

    def kept(self, config: RunConfig) -> Iterable[Path]:
        """Its teacher, unless that is a user's own file."""
        return () if config.teacher.file else (teacher_file(config.teacher, data_of(config.data)),)

    def trial(
        self, config: RunConfig, out: Path, began: float | None = None, introduction: Introduction | None = None
    ) -> Trial:
        """The first experiences, and the first steps of the teacher's training if it is not trained yet."""
        from lra.benchmarks.runs.trial import trial

        return trial(config, out, began, introduction)

    def places(self, tree: Tree, base: Path) -> Mapping[str, Any]:
        """Where the data, the teacher's file, what the run starts from, and code lie."""
        return places_of(placed_layer(expanded(tree), [base]))

    def moved(self, tree: Tree, file: Path) -> str | None:
        """The command with the option for what is missing."""
        return going_on(self.name, file, moved(tree))


DISTILLATION = Distillation()


def stored_configuration(folder: Path) -> RunConfig:
    """The configuration that a run folder was made with.

    Raises:
        MissingInput: if the folder is not a run's.
        UsageError: if this program cannot use it, or code that it names has changed.
    """
    file = folder.absolute() / "config.yaml"
    if not file.is_file():
        raise MissingInput(f"{file} does not exist: give the folder of one run, not of several")
    stored = file_layer(file)
    with concerning(origin("config", file)):
        config = restored(stored)
    config = importing(config)
    before, code = recorded(file.parent), {"code": identities(config.tree())}
    if before is not None and (other := difference({"code": before.get("code", {})}, code)):
        raise UsageError(f"{folder}: {other}, or start over with lra-bench run --config {file}")
    return config


def require_images(folder: Path) -> None:
    """Raise `MissingInput` unless a run left images, or a generator of images, and its data are there.

    Every method leaves one or the other when it is finished: methods with a persistent generator leave that generator,
    those that synthesise batches leave their last batch.
    """
    config = stored_configuration(folder)
    if not (folder / "result.json").is_file():
        raise MissingInput(f"run {folder} is not finished: continue with lra-bench resume {folder}")
    if not any((folder / name).is_file() for name in (GENERATOR, SYNTHETIC)):
        raise MissingInput(
            f"run {folder} no longer has {GENERATOR} or {SYNTHETIC}, one of which every method leaves: delete "
            "its result.json to run again"
        )
    data_of(config.data).require()


def label(config: RunConfig, teacher: str) -> str:
    """The first part of a run folder's path; ``teacher`` is the name of its network."""
    meta = "+meta" if config.meta.enabled else ""
    data = data_label(config.data.name)
    return f"{config.method}+{config.replay['name']}{meta}-{teacher}-{config.student.network}-{data}"


def identity_of(config: RunConfig, teacher_sha256: str, data: DataSet) -> Identity:
    """What identifies a run; if the test set is not looked at, what the run knows of it stands in for it."""
    own = data_kind(data.name) != data.name
    if config.data.test:
        tested_on = data.content("test")
    else:
        tested_on = f"{data.classes} classes of {data.image}" if own else ""
    return config.identity(teacher_sha256, tested_on)


def _teacher(config: RunConfig, train: bool, made: dict[str, Any]) -> tuple[TrainedTeacher, DataSet] | None:
    """The teacher of ``config`` and its data, whose notes are printed once for all of ``made``."""
    from lra.benchmarks.runs.memory import sized

    refuse_device(config.device)
    data = data_of(config.data)
    for note in data.notes:
        if note not in made:
            tell(note)
            made[note] = None
    config = sized(config, data)
    if not train and untrained(config.teacher, data):
        return None
    return obtain(config.teacher, data, data.load("test") if config.data.test else None, config.device), data
