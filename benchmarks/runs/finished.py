"""Runs that are finished already, told and shown without importing what trains."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from lra.benchmarks.errors import MissingInput
from lra.benchmarks.files import sha256
from lra.benchmarks.progress import loading, tell
from lra.benchmarks.runs.machine import leads
from lra.benchmarks.runs.run_folder import RunFolder, identity_of
from lra.benchmarks.runs.trackers import Tracker
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import data_of
from lra.benchmarks.setup.identity import stored_configuration
from lra.benchmarks.setup.places import moved
from lra.benchmarks.setup.presets import announced
from lra.benchmarks.setup.teachers import teacher_file


def run(
    config: RunConfig, out: Path, trackers: Sequence[Tracker] = (), quiet: bool = False, at: Path | None = None
) -> RunFolder:
    """Do a run, or return it, which is said on stderr, if it was finished before.

    Args:
        config: a resolved configuration.
        out: parent of run folders.
        trackers: further records to keep of it.
        quiet: nothing on stderr.
        at: the folder that it is to be in, wherever that was moved.

    Raises:
        LraError: as `lra.benchmarks.runs.runner.run`.
    """
    folder = finished(config, out, at)
    if folder is None:
        # First of all, where more than that takes seconds; else the runner says it, once nothing is refused any more.
        if config.data.test:
            data_of(config.data).require()
        first = not quiet and leads() and "torch" not in sys.modules
        if first:
            for line in announced(config):
                tell(line)
        if not quiet and leads():
            loading("torch", "avalanche")
        from lra.benchmarks.runs import runner

        return runner.run(config, out, trackers, quiet, at, introduced=first)
    if not quiet:
        tell_finished(folder, tracked=bool(trackers))
    return folder


def resume(path: Path, on_divergence: Literal["stop", "rollback"] | None = None) -> RunFolder:
    """Go on with the run of an existing folder.

    Args:
        path: the folder.
        on_divergence: in place of what the run was started with.

    Raises:
        LraError: as `run`, and if the folder is none of a run, or what it is made of changed.
        MissingInput: if some of that is not where it was.
    """
    path = path.resolve()
    config = stored_configuration(path)
    if on_divergence is not None:
        config = config.model_copy(update={"on_divergence": on_divergence})
    out = (path / "../../..").resolve()
    try:
        return run(config, out, at=path)
    except MissingInput as error:
        option = moved(config.tree())
        if option is None:
            raise
        again = f"lra-bench run --config {path / 'config.yaml'} {option} --out {out}"
        raise MissingInput(f"{error}; if it was moved, go on with {again}") from None


def finished(
    config: RunConfig, out: Path, at: Path | None = None, digest: Callable[[Path], str] = sha256
) -> RunFolder | None:
    """The folder of this run under ``out``, or ``at`` a place, if all of it is done.

    ``None`` leaves it to `lra.benchmarks.runs.runner`. ``digest`` gives that of the teacher's file.

    Raises:
        UsageError: for another run at that place, data that are not as they must be, or a damaged result.
        MissingInput: for a user's own data that are not there.
    """
    data = data_of(config.data)
    try:
        teacher = teacher_file(config.teacher, data)
    except MissingInput:  # No training data; whether they are needed is not known here.
        return None
    if not teacher.is_file():
        return None
    identity = identity_of(config, digest(teacher), data)
    places = [at] if at is not None else sorted(out.glob(f"*/{RunFolder.place(config, identity)}"))
    for path in places:
        folder = RunFolder(path, identity)
        if at is not None:
            folder.refuse_other()
        # With a checkpoint it was killed between its result and its report.
        if folder.result is not None and not folder.checkpoint.exists():
            folder.update_places(config)
            return folder
    return None


def tell_finished(folder: RunFolder, tracked: bool) -> None:
    """Say on stderr that a run is shown again, and was not done again."""
    if leads():
        what = "track" if tracked else "train"
        print(f"lra-bench: finished before, nothing to {what}: {folder.path}", file=sys.stderr)
