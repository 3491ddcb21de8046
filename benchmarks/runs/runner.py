"""One run of any kind, from its configuration to the result in its folder, and the trackers that follow it.

A finished run is shown again, which imports nothing needed for training. There are no trackers, and no network access,
unless requested.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lra.benchmarks.errors import (
    AtOnce,
    Interrupted,
    LraError,
    MissingInput,
    Resumable,
    UsageError,
    in_one_line,
    one_line,
)
from lra.benchmarks.files import CannotWrite, sha256
from lra.benchmarks.progress import Introduction, loading, tell
from lra.benchmarks.runs.kind import DEFAULT, Configuration, Kind, Tracker, kind_named, kind_of
from lra.benchmarks.runs.machine import leads, refuse_device
from lra.benchmarks.runs.progress import Journal, journal
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.resolution import read_options

if TYPE_CHECKING:
    from lra.benchmarks.runs.processes import Processes
    from lra.strategies.evaluation import WeightsAndBiases


log = logging.getLogger("lra")


def run(
    config: Configuration,
    out: Path,
    trackers: Sequence[Tracker] = (),
    quiet: bool = False,
    at: Path | None = None,
    heading: str = "",
    part_of: Path | None = None,
    wait: bool = False,
) -> RunFolder:
    """Do a run, or finish it, or, if it was finished before, return it and say so on stderr.

    What cannot be done is refused before a file is written.

    Args:
        config: a resolved configuration.
        out: parent of run folders.
        trackers: further records to keep of it.
        quiet: nothing on stderr.
        at: the folder of the run, if it was moved.
        heading: a line to print before all others.
        part_of: the folder of what it is a part of, which a user should resume in its place. If another process does
            the same part of something else, wait for it.
        wait: wait for another process that does this run, instead of refusing.

    Raises:
        LraError: with an exit code, for everything that a user can fix.
    """
    kind = kind_of(config)
    folder = finished(config, out, at)
    if folder is not None:
        if not quiet:
            tell_finished(folder, bool(trackers), heading)
        return folder
    kind.require(config)
    hushed = quiet or not leads()
    introduction = Introduction(*filter(None, [heading]), *kind.introduction(config), quiet=hushed)
    with nullcontext() if hushed else loading("torch", "avalanche"):
        from lra.benchmarks.runs.processes import local_device, processes
        from lra.strategies.distributed import PeerLost

    with in_one_line(), journal() as kept, processes(config.device) as group:
        config = config.model_copy(update={"device": local_device(config.device)})
        try:
            return _run(kind, config, out, trackers, quiet, at, heading, part_of, wait, introduction, group, kept)
        except PeerLost as error:
            raise LraError(f"process {group.rank} of {group.count}: {error}; then start the run again") from None
        except Interrupted as stopped:
            if group.rank:
                sys.exit(stopped.code)
            raise


def _run(
    kind: Kind,
    config: Configuration,
    out: Path,
    trackers: Sequence[Tracker],
    quiet: bool,
    at: Path | None,
    heading: str,
    part_of: Path | None,
    wait: bool,
    introduction: Introduction,
    group: Processes,
    kept: Journal,
) -> RunFolder:
    """`run`, as one process of ``group``; ``kept`` is its log so far."""
    RunFolder(out).refuse_unwritable()
    refuse_device(config.device)
    prepared = kind.prepare(config, introduction, group, trackers, quiet)
    if at is None:
        folder = RunFolder.of(prepared.label, prepared.identity, config.seed, out)
    else:
        folder = RunFolder(at, prepared.identity)
        folder.refuse_other()
    folder.resumed = part_of or folder.path
    if not group.rank:
        update_places(folder, kind, prepared.config)
    if folder.result is not None:
        if not quiet:
            tell_finished(folder, bool(trackers), heading)
        if folder.checkpoint.exists() and not group.rank:  # It was killed between its result and its report.
            with folder.locked():
                finish(kind, folder)
        return folder

    try:
        with group.folder(folder) as own:
            work = prepared.build(own)
            with own.locked(wait=wait or part_of is not None), kept.into(own.path / "log.txt"), failure_in_log():
                if own.result is not None:  # Another process has done it since.
                    return folder
                try:
                    work.open(introduction.say)
                    work.complete()
                    if not group.rank:
                        finish(kind, own)
                except (CannotWrite, OSError) as error:
                    again = f"when that is mended, continue with lra-bench resume {folder.resumed}"
                    raise Resumable(f"{error}; {again}") from None
    except KeyboardInterrupt:
        again = f"continue with lra-bench resume {folder.resumed}"
        raise AtOnce(again if folder.checkpoint.exists() else "nothing is saved, start it again") from None
    return folder


@contextmanager
def failure_in_log() -> Iterator[None]:
    """A context that logs why a run ends early."""
    try:
        yield
    except LraError as error:
        log.info("%s", error if isinstance(error, Resumable) else f"failed: {error}")
        raise
    except Exception as error:
        log.info("failed", exc_info=error)
        raise


def finish(kind: Kind, folder: RunFolder) -> None:
    """What is left to do once the result is written."""
    kind.write_report(folder.path)
    folder.drop_checkpoints()


def stored(folder: Path) -> Configuration:
    """The configuration that a run folder was made with.

    Raises:
        MissingInput: if the folder is not that of a run.
        UsageError: if what it names has changed since.
    """
    return kind_in(folder).stored(folder)


def kind_in(folder: Path) -> Kind:
    """The kind of the run in a folder.

    Raises:
        UsageError: if its configuration is damaged, or of an unknown kind.
    """
    file = folder.absolute() / "config.yaml"
    return kind_named(read_options(file, "config").get("kind", DEFAULT) if file.is_file() else DEFAULT)


def resume(path: Path, on_divergence: Literal["stop", "rollback"] | None = None) -> RunFolder:
    """Resume the run in an existing folder.

    Args:
        path: the folder.
        on_divergence: in place of the setting with which the run was started.

    Raises:
        LraError: as `run`, and if the folder is not that of a run, or its teacher, data or code have changed.
        MissingInput: if some of these are not where they were.
    """
    path = path.resolve()
    config = stored(path)
    kind = kind_of(config)
    if on_divergence is not None:
        if "on_divergence" not in kind.flags:
            raise UsageError(f"--on-divergence is for runs that distil, and {path} is a run of lra-bench {kind.name}")
        config = config.model_copy(update={"on_divergence": on_divergence})
    out = (path / "../../..").resolve()
    try:
        return run(config, out, at=path)
    except MissingInput as error:
        again = kind.moved(config.tree(), path / "config.yaml")
        if again is None:
            raise
        raise MissingInput(f"{error}; if it was moved, {again}") from None


def finished(
    config: Configuration, out: Path, at: Path | None = None, digest: Callable[[Path], str] = sha256
) -> RunFolder | None:
    """The folder of this run under ``out``, or ``at`` a place, if the run is finished.

    ``None`` leaves it to `run` to find out. ``digest`` computes the hash of a file, such as the teacher's.

    Raises:
        UsageError: for another run at that place, invalid data, or a damaged result.
        MissingInput: for a user's own data that do not exist.
    """
    kind = kind_of(config)
    identity = kind.identity(config, digest)
    if identity is None:
        return None
    for path in [at] if at is not None else sorted(out.glob(f"*/{RunFolder.place(identity, config.seed)}")):
        folder = RunFolder(path, identity)
        if at is not None:
            folder.refuse_other()
        # With a checkpoint it was killed between its result and its report.
        if folder.result is not None and not folder.checkpoint.exists():
            update_places(folder, kind, config)
            return folder
    return None


def update_places(folder: RunFolder, kind: Kind, config: Configuration) -> None:
    """Update the paths in the configuration stored in ``folder``, if files were moved."""
    file = folder.path / "config.yaml"
    stored = read_options(file, "config") if file.is_file() else None
    if stored is not None and kind.places(stored, folder.path) != kind.places(config.tree(), folder.path):
        with suppress(CannotWrite):  # It can be looked at all the same.
            folder.write_config(config.tree())


def tell_finished(folder: RunFolder, tracked: bool, heading: str = "") -> None:
    """Say on stderr, below a ``heading`` if there is one, that a run is only shown again, not repeated."""
    if leads():
        if heading:
            tell(heading)
        tell(f"lra-bench: finished before, nothing to {'track' if tracked else 'train'}: {folder.path}")


Mode = Literal["offline", "online"]


def asked_for(board: bool = False, wandb: Mode | None = None) -> list[Tracker]:
    """The requested trackers of a run.

    Args:
        board: write TensorBoard events into ``tensorboard`` in the run folder.
        wandb: keep a Weights & Biases record in ``wandb`` in the run folder, or send it as well.
    """
    found: list[Tracker] = []
    if board:
        found.append(_tensorboard)
    if wandb is not None:
        found.append(lambda folder, config: _weights_and_biases(folder, config, wandb))
    return found


def _tensorboard(folder: Path, config: RunConfig) -> Any:
    from lra.strategies.evaluation import tensorboard

    return tensorboard(folder / "tensorboard")


def _weights_and_biases(folder: Path, config: RunConfig, mode: Mode) -> WeightsAndBiases:
    from lra.strategies.evaluation import WeightsAndBiases

    try:
        return WeightsAndBiases(folder, "/".join(folder.parts[-3:]), config.tree(), mode)
    except ImportError:
        raise MissingInput(f"--wandb {mode} needs a package that is not there: pip install wandb") from None
    except Exception as error:
        raise UsageError(
            f"--wandb {mode} cannot start ({one_line(error)}): see wandb login, or use --wandb offline, and wandb "
            "sync later"
        ) from error
