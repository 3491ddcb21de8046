"""One run, from configuration to result, into its folder."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lra.benchmarks import checkpoint_file
from lra.benchmarks.errors import LraError, Resumable, UsageError, in_one_line
from lra.benchmarks.files import CannotWrite
from lra.benchmarks.interruption import AtOnce, Interrupted
from lra.benchmarks.progress import at_once, tell
from lra.benchmarks.runs.attempt import Attempt, finish
from lra.benchmarks.runs.finished import tell_finished
from lra.benchmarks.runs.journal import Journal, journal
from lra.benchmarks.runs.machine import refuse_device
from lra.benchmarks.runs.memory import sized
from lra.benchmarks.runs.processes import Processes, local_device, processes
from lra.benchmarks.runs.rollback import RATE, TIMES, rolled_back
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.runs.trackers import Tracker
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import data_of
from lra.benchmarks.setup.presets import announced, unlike
from lra.benchmarks.setup.teachers import obtain, teacher_file
from lra.meta.checks import MetaDiverged, MetaStepError
from lra.strategies.distributed import PeerLost
from lra.strategies.extensions import PluginFailed
from lra.synthesis.batches import Diverged

log = logging.getLogger("lra")


def run(
    config: RunConfig,
    out: Path,
    trackers: Sequence[Tracker] = (),
    quiet: bool = False,
    at: Path | None = None,
    introduced: bool = False,
) -> RunFolder:
    """Do a run, or finish it, or return it if it is finished. What cannot be done is refused before a file is written.

    Args:
        config: a resolved configuration.
        out: parent of run folders.
        trackers: further records to keep of it.
        quiet: no progress on stderr.
        at: the folder that it is to be in, wherever that was moved.
        introduced: what it replays and where its settings are from was said on stderr already.

    Raises:
        LraError: with an exit code, for everything that a user can mend.
    """
    with in_one_line(), journal() as kept, processes(config.device) as group:
        config = config.model_copy(update={"device": local_device(config.device)})
        try:
            return _run(config, out, trackers, quiet, at, introduced, group, kept)
        except PeerLost as error:
            raise LraError(f"process {group.rank} of {group.count}: {error}; then start the run again") from None
        except Interrupted as stopped:
            if group.rank:
                sys.exit(stopped.code)
            raise


def _run(
    config: RunConfig,
    out: Path,
    trackers: Sequence[Tracker],
    quiet: bool,
    at: Path | None,
    introduced: bool,
    group: Processes,
    kept: Journal,
) -> RunFolder:
    """`run`, as one of ``group``; ``kept`` is what was said of it so far."""
    RunFolder(out).refuse_unwritable()
    refuse_device(config.device)
    data = data_of(config.data)
    config = sized(config, data)
    if not quiet and not group.rank:
        for note in data.notes:
            tell(note)
    lines = announced(config)

    def introduce() -> None:  # Once, and where that is quick, not before what cannot be done is refused.
        for line in lines:
            log.info(line)
            if not quiet and not group.rank and not introduced:
                tell(line)

    test = data.load("test") if config.data.test else None
    if at_once() and not teacher_file(config.teacher, data).is_file():
        introduce()
    teacher = group.in_turn(lambda: obtain(config.teacher, data, test, config.device, quiet or group.rank > 0))
    if other := unlike(config, teacher.name):
        log.info(other)
        if not quiet and not group.rank:
            tell(other)
    folder = RunFolder.of(config, teacher, data, out)
    if at is not None:
        folder = RunFolder(at, folder.identity)
        folder.refuse_other()
    if not group.rank:
        folder.update_places(config)
    if folder.result is not None:
        if not quiet:
            tell_finished(folder, tracked=bool(trackers))
        if folder.checkpoint.exists() and not group.rank:  # It was killed between its result and its report.
            with folder.locked():
                finish(folder)
        return folder

    try:
        with group.folder(folder) as own:
            _complete(own, kept, introduce, lambda: Attempt(config, own, data, teacher, test, trackers, quiet, group))
    except KeyboardInterrupt:
        again = f"go on with lra-bench resume {folder.path}"
        raise AtOnce(again if folder.checkpoint.exists() else "nothing is saved, start it again") from None
    return folder


def _complete(folder: RunFolder, kept: Journal, introduce: Callable[[], None], attempt: Callable[[], Attempt]) -> None:
    work = attempt()
    with folder.locked(), kept.into(folder.path / "log.txt"):
        work.open()
        introduce()
        try:
            while (diverged := _divergence(work)) is not None:
                _roll_back(work, diverged)
                work = attempt()
                work.open()
        except MetaStepError as error:
            raise UsageError(f"--meta: {error}") from None
        except PluginFailed as error:
            log.debug("what the plugin raised", exc_info=error)
            raise LraError(str(error)) from None
        except (CannotWrite, OSError) as error:
            raise Resumable(f"{error}; when that is mended, go on with lra-bench resume {folder.path}") from None


def _divergence(work: Attempt) -> str | None:
    """Complete an attempt; if it cannot be because numbers are none any more, say which."""
    try:
        work.complete()
    except (MetaDiverged, Diverged) as error:
        where = f" (student step {work.experiment.strategy.clock.train_iterations})"
        return f"diverged: {error}{'' if 'student step' in str(error) else where}"
    return None


def _roll_back(work: Attempt, cause: str) -> None:
    """Save the state to go on from.

    Raises:
        LraError: if the run is to stop at a divergence, or has had its rollbacks.
    """
    folder, config = work.folder, work.config
    if config.on_divergence == "stop" or not folder.retreat.exists():
        saved = folder.restore()
        good = "none yet" if saved is None else f"experience {saved['position']}, {folder.checkpoint}"
        raise LraError(
            f"{cause}; last good checkpoint: {good}; lower student.lr or synthesis.lr, or go on from there at a lower "
            f"rate with lra-bench resume {folder.path} --on-divergence rollback"
        )
    if len(work.rollbacks) == TIMES:
        raise LraError(f"{cause}, after {TIMES} rollbacks: lower student.lr or synthesis.lr")
    retreat = checkpoint_file.read(folder.retreat)
    note = {"cause": cause, "to_experience": retreat["position"], "student_lr_times": RATE, "random": "drawn anew"}
    log.warning("%s: back to experience %d, at %g times the learning rate", cause, retreat["position"], RATE)
    folder.save(rolled_back(retreat, [*work.rollbacks, note], config.seed))
