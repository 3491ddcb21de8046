"""One run, from configuration to result, into its folder."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from lra.benchmarks.setup.assemble import stored_configuration
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, Labelled, data_set
from lra.benchmarks.errors import LraError, UsageError
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.files import write_atomically
from lra.benchmarks.runs.interruption import Interrupted, interrupts
from lra.benchmarks.runs.machine import environment, refuse_device
from lra.benchmarks.runs.outcome import matrix, result
from lra.benchmarks.runs.progress import Progress
from lra.benchmarks.reports.report import write_report
from lra.benchmarks.runs.run_folder import MetricsFile, RunFolder
from lra.benchmarks.runs.samples import Samples
from lra.benchmarks.setup.teachers import TrainedTeacher, obtain
from lra.meta import MetaStepError
from lra.state import seed_everything
from lra.strategies.checkpoint import capture, restore
from lra.strategies.evaluation import tensorboard as tensor_board
from lra.synthesis.batches import Diverged

CHECKPOINT_SECONDS = 60.0
"""Time between checkpoints: what a kill can cost."""

log = logging.getLogger("lra")


def resume(path: Path) -> RunFolder:
    """Go on with the run of an existing folder.

    Raises:
        LraError: as `run`, and if the folder is none of a run or its teacher is not there any more.
    """
    path = path.resolve()
    return run(stored_configuration(path), (path / "../../..").resolve(), at=path)


def run(
    config: RunConfig, out: Path, tensorboard: bool = False, quiet: bool = False, at: Path | None = None
) -> RunFolder:
    """Do a run, or finish it, or return it if it is finished. What cannot be done is refused before a file is written.

    Args:
        config: a resolved configuration.
        out: parent of run folders.
        tensorboard: write TensorBoard events into the folder, through Avalanche's logger.
        quiet: no progress on stderr.
        at: the folder it must be, if it exists already.

    Raises:
        LraError: with an exit code, for everything that a user can mend.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    RunFolder(out).refuse_unwritable()
    refuse_device(config.device)
    data = data_set(config.data.name, config.data.size)
    test = data.load("test") if config.data.test else None
    teacher = obtain(config.teacher, data, test)
    folder = RunFolder.of(config, teacher.name, teacher.sha256, out)
    if at is not None and folder.path != at:
        raise UsageError(f"{at} is of another teacher or was moved: its place would be {folder.path} now")
    if folder.result is not None:
        log.info("finished before: %s", folder.path)
        return folder
    work = _Run(config, folder, data, teacher, test, tensorboard, quiet)
    with folder.locked(), _log_file(folder.path / "log.txt"):
        work.open()
        work.complete()
    return folder


class _Run:
    """A run in progress: what is shared between building, training, saving and closing it."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        data: DataSet,
        teacher: TrainedTeacher,
        test: Labelled | None,
        tensorboard: bool,
        quiet: bool,
    ):
        self.config = config
        self.folder = folder
        self.teacher = teacher
        self.seconds = 0.0
        seed_everything(config.seed)

        def loggers() -> list[Any]:
            return [tensor_board(folder.path / "tensorboard")] if tensorboard else []

        self.experiment: Experiment = prepare(config, data, teacher, test, self._keep, loggers)
        self.samples = Samples(folder.path / "samples", self.experiment.stream.synthesizer, config.evaluation.samples)
        self.progress = Progress(self.experiment.stream.length, quiet)

    def open(self) -> None:
        """Start the folder, or take up what is saved there."""
        saved = self.folder.restore()
        self.metrics = MetricsFile(self.folder.path / "metrics.jsonl", saved["records"] if saved else 0)
        if saved is None:
            self.folder.write_config(self.config.tree())
            self.folder.write_json("teacher.json", self.teacher.record())
            self.folder.write_json("env.json", environment())
        else:
            try:
                restore(saved, self.experiment.strategy, self.experiment.stream, self.experiment.parts)
            except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
                raise UsageError(
                    f"checkpoint {self.folder.checkpoint} does not fit ({str(error).splitlines()[0]}): delete it to "
                    "start the run again"
                ) from None
            self.seconds = saved["seconds"]
            log.info(
                "resumed at experience %d of %d",
                self.experiment.stream.position,
                self.experiment.stream.length,
            )
        self.started = self.saved = time.monotonic()

    def complete(self) -> None:
        """Train to the end, then write the result, the student and the report."""
        stream = self.experiment.stream
        with interrupts() as stopping:

            def rest() -> None:
                self.progress.advance(stream.position)
                if stopping or time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                    self._save()
                if stopping:
                    raise Interrupted(stopping[0], self.folder)

            stream.at_rest = rest
            try:
                if stream.position < stream.length:
                    self.experiment.strategy.train(stream)
            except (MetaStepError, Diverged) as error:
                raise LraError(f"{error} (student step {self.experiment.strategy.clock.train_iterations})") from None
            finally:
                self.progress.close()
        self._close()

    def _keep(self, record: dict[str, Any]) -> None:
        if not math.isfinite(record["losses"]["objective"]):
            raise LraError(f"the student has diverged by student step {record['student_step']}: lower student.lr")
        self.metrics.append(record)
        self.samples.take(record["evaluation"], record["student_step"])
        self.progress.note(record)

    def _save(self) -> None:
        state = capture(self.experiment.strategy, self.experiment.stream, self.experiment.parts)
        state |= {"records": len(self.metrics.records), "seconds": self._elapsed()}
        self.folder.save(state)
        self.saved = time.monotonic()

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def _close(self) -> None:
        student = self.experiment.strategy.model
        tensors = {name: tensor.contiguous().cpu() for name, tensor in student.state_dict().items()}
        write_atomically(self.folder.path / "student.safetensors", lambda file: file.write(save(tensors)))
        self.folder.write_json("forgetting.json", matrix(self.experiment))
        done = result(self.experiment, self.teacher, self.metrics.records, self._elapsed())
        self.folder.write_json("result.json", done)
        write_report(self.folder.path)
        self.folder.checkpoint.unlink(missing_ok=True)


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
