"""A distillation from its start, or from a saved state, to its end, and the files it leaves.

These are ``result.json`` at its end, and pictures of what its generator makes on the way.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from lra.benchmarks.errors import PATIENCE, GivenUp, Interrupted, at_a_step, interrupts
from lra.benchmarks.files import packed, write_atomically, write_checkpoint
from lra.benchmarks.records import AVERAGE, BEST, REPLAYED, SAMPLES, STUDENT
from lra.benchmarks.runs.kind import Tracker
from lra.benchmarks.runs.machine import Stopwatch, environment, peak_memory
from lra.benchmarks.runs.memory import as_far_as_it_fits, bounded, refuse_oversize
from lra.benchmarks.runs.processes import Processes
from lra.benchmarks.runs.progress import RunProgress
from lra.benchmarks.runs.run_folder import SCHEMA, MetricsFile, RunFolder
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, Labelled
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.networks import refuse_single
from lra.benchmarks.setup.retaining import forgetful
from lra.benchmarks.setup.reuse import reuse, save_for_reuse
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.benchmarks.setup.user_code import refuse_edited, remember
from lra.benchmarks.setup.weights_files import save_weights
from lra.state import State, seed_everything
from lra.strategies import student_average
from lra.strategies.checkpoint import capture, restore
from lra.strategies.divergence import norm
from lra.strategies.evaluation import Record
from lra.strategies.strategy import Replay

CHECKPOINT_SECONDS = 60.0
"""Time between checkpoints: this and one experience are the most that a kill can cost."""

log = logging.getLogger("lra")


class Training:
    """A run in progress: what is shared between building, training, saving and closing it.

    Attributes:
        folder: of the run.
        experiment: its parts, built.
        forgetful: plugins without a state to save; with any, the run cannot be resumed.
        rollbacks: rollbacks after divergences so far.
        times: student step and seconds since the start, for each evaluation.
        at_hand: the state before the current experience, if that may take long.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        data: DataSet,
        teacher: TrainedTeacher,
        test: Labelled | None,
        trackers: Sequence[Tracker] = (),
        quiet: bool = False,
        processes: Processes | None = None,
    ):
        self.config = config
        self.data = data
        self.processes = processes or Processes()
        self.folder = folder
        self.teacher = teacher
        self.watch = Stopwatch()
        self.rollbacks: list[dict[str, Any]] = []
        self.times: list[tuple[int, float]] = []

        def loggers() -> list[Any]:
            return [] if self.processes.rank else [tracker(folder.path, config) for tracker in trackers]

        self.experiment = built(self.processes.share(config), data, teacher, test, self._keep, loggers)
        self.experiment.config = config
        refuse_edited(config.tree())
        self.processes.join(self.experiment)
        self.forgetful = forgetful(config)
        replays = [plugin for plugin in self.experiment.strategy.plugins if isinstance(plugin, Replay)]
        sources = {SAMPLES: self.experiment.stream.synthesizer.peek} | ({REPLAYED: replays[0].shown} if replays else {})
        self.pictures = Pictures(folder.path, sources, config.evaluation.samples)
        self.progress = RunProgress(self.experiment, quiet or self.processes.rank > 0)

    def open(self, begin: Callable[[], None]) -> None:
        """Start the folder, or resume what is saved there."""
        saved = self.folder.restore()
        if saved is None:
            begin()
            self.metrics = self._metrics(0)
            self.folder.write_config(self.config.tree())
            self.folder.write_json("data.json", self.data.record())
            remember((self.config.code or {}).values())
            self.folder.write_json("teacher.json", self.teacher.record())
            self.folder.write_json("env.json", environment() | {"processes": self.processes.count})
        else:
            self._take_up(saved)
            begin()
            stream = self.experiment.stream
            log.info("resumed at experience %d of %d", stream.position, stream.length)
        self.watch.start()
        self.saved = self.rested = time.monotonic()
        self.retreatable = len(self.metrics.records)
        if self._may_roll_back and not self.folder.retreat.exists():
            write_checkpoint(self.folder.retreat, self._state())

    def complete(self) -> None:
        """Train to the end, then write the student and the result.

        Raises:
            Diverged, MetaDiverged: when numbers are no longer finite.
            MetaStepError: if the LRA step cannot be taken.
            Interrupted: at a signal, when all is saved.
        """
        stream, forgetful = self.experiment.stream, self.forgetful
        with interrupts() as stopping, bounded(self.config.device) as lift:

            def stopped() -> Interrupted:
                how = f"start over, as plugin {forgetful[0]!r} has no state_dict," if forgetful else "continue"
                remedy = f"{how} with lra-bench resume {self.folder.resumed}"
                return Interrupted(stopping[0] if stopping else signal.SIGTERM, remedy)

            def rest() -> None:
                lift()
                self.progress.advance(stream.position)
                late = time.monotonic() - self.saved > CHECKPOINT_SECONDS
                stop, due = self.processes.agreed(bool(stopping), late)
                if stop or due:
                    self._save()
                if stop:
                    raise stopped()
                self._remember(time.monotonic() - self.rested > PATIENCE)
                # By evaluations and not by time: where a run goes back to must not depend on the machine.
                if self._may_roll_back and len(self.metrics.records) > self.retreatable:
                    self.retreatable = len(self.metrics.records)
                    write_checkpoint(self.folder.retreat, self._state())

            stream.at_rest = rest
            self._remember(long=True)
            try:
                if stream.position < stream.length and not stream.ended:
                    with self.progress.begin(), at_a_step(stopping, lambda: self.at_hand is not None):
                        self.experiment.strategy.train(stream)
            except GivenUp:
                self._save(self.at_hand)
                raise stopped() from None
            finally:
                self.progress.close()
        if (stopped_by := self.experiment.strategy.stopped) is not None:
            log.warning("%s stopped the run after %d of %d experiences", stopped_by, stream.position, stream.length)
        self._close()

    @property
    def _may_roll_back(self) -> bool:
        return self.config.on_divergence == "rollback" and not self.forgetful

    def _take_up(self, saved: State) -> None:
        with self.folder.taking_up():
            saved = self.processes.own(saved)
            self.metrics = self._metrics(saved["records"])
            restore(saved, self.experiment.strategy, self.experiment.stream)
            if not math.isfinite(norm(self.experiment.strategy.model.parameters())):
                raise ValueError("its student has weights that are not numbers")
            self.watch.take_up(saved)
            self.rollbacks = list(saved["rollbacks"])
            self.times = [(step, seconds) for step, seconds in saved["times"]]

    def _metrics(self, keep: int) -> MetricsFile:
        return MetricsFile(self.folder.path / "metrics.jsonl", keep)

    def _keep(self, record: dict[str, Any]) -> None:
        self.metrics.append(record)
        self.times.append((record["student_step"], self.watch.read()["seconds"]))
        if self.config.evaluation.keep_best and not self.processes.rank and best_of(self.metrics.records) is record:
            save_weights(self.folder.path / BEST, self.experiment.strategy.model)
        last = record["experience"] == self.experiment.stream.length or self.experiment.strategy.stopped is not None
        self.pictures.take(record["evaluation"], record["student_step"], last)
        self.progress.note(record)

    def _state(self) -> State:
        state = capture(self.experiment.strategy, self.experiment.stream)
        own = {"records": len(self.metrics.records), "rollbacks": self.rollbacks, "times": self.times}
        return self.processes.gathered(state | own | self.watch.read())

    def _save(self, state: memoryview | None = None) -> None:
        # Half a state would go on as another run.
        if not self.forgetful:
            self.folder.save(self._state() if state is None else state)
        self.saved = time.monotonic()

    def _remember(self, long: bool) -> None:
        """Keep the current state in memory, if the next experience may be ``long``."""
        # Of several processes, all would have to give up the same experience.
        self.at_hand = packed(self._state()) if long and self.processes.count == 1 else None
        self.rested = time.monotonic()

    def _close(self) -> None:
        student = self.experiment.strategy.model
        save_weights(self.folder.path / STUDENT, student)
        if (average := self.experiment.networks.get(student_average.NAME)) is not None:
            save_weights(self.folder.path / AVERAGE, average)
        self.processes.sum_up(self.experiment)
        if self.processes.rank:
            return
        for file, content in self.experiment.evaluation.files().items():
            self.folder.write_json(file, content)
        self.folder.write_json("times.json", self.times)
        save_for_reuse(self.folder.path, self.experiment, self.teacher)
        name = self.folder.config_hash
        done = result(self.experiment, self.teacher, self.metrics.records, self.watch.read(), name, self.rollbacks)
        self.folder.write_json("result.json", done)


def built(
    config: RunConfig,
    data: DataSet,
    teacher: TrainedTeacher,
    test: Labelled | None,
    keep: Callable[[dict[str, Any]], None],
    loggers: Callable[[], list[Any]] = list,
) -> Experiment:
    """A run ready to train, seeded, with what it starts from; arguments as for `prepare`.

    Raises:
        LraError: if its parts do not fit together, or in memory.
    """
    refuse_single(config, data)
    seed_everything(config.seed)
    with as_far_as_it_fits(config):
        experiment = prepare(config, data, teacher, test, keep, loggers)
    reuse(experiment)
    refuse_oversize(config, data, experiment)
    return experiment


def best_of(records: Sequence[Record]) -> Record:
    """The evaluation with the highest test accuracy, the first if several are equal."""
    return max(records, key=lambda record: float(record["accuracy"]))


def result(
    experiment: Experiment,
    teacher: TrainedTeacher,
    records: Sequence[Record],
    spent: dict[str, float],
    config_hash: str,
    rollbacks: Sequence[Record] = (),
) -> Record:
    """The result of a trained experiment, from its evaluations, the time it took and its rollbacks."""
    config = experiment.config
    parameters = sum(parameter.numel() for parameter in experiment.strategy.model.parameters())
    return {
        "schema": SCHEMA,
        "status": "finished",
        "method": config.method,
        "replay": config.replay["name"],
        "meta": config.meta.enabled,
        "seed": config.seed,
        "dataset": config.data.name,
        "teacher": teacher.record(),
        "student": {"name": config.student.network, "parameters": parameters},
        **({} if experiment.quantization is None else {"quantization": experiment.quantization}),
        **experiment.evaluation.outcome(records),
        **_best(config, records),
        "rollbacks": list(rollbacks),
        **_stopped(experiment),
        "cost": _cost(experiment) | spent | {"peak_memory_mb": peak_memory(config.device)},
        "config_hash": config_hash,
        "versions": environment()["versions"],
    }


def _best(config: RunConfig, records: Sequence[Record]) -> Record:
    """The student that was kept besides the last one, and what it was chosen on."""
    if not config.evaluation.keep_best:
        return {}
    best = {key: best_of(records)[key] for key in ("student_step", "accuracy")}
    return {"best": best | {"file": BEST, "chosen_on": "test data"}}


def _stopped(experiment: Experiment) -> Record:
    """What ended the run before its budget, if anything did."""
    by = experiment.strategy.stopped
    return {} if by is None else {"stopped": {"by": by, "of_experiences": experiment.stream.length}}


def _cost(experiment: Experiment) -> Record:
    stream = experiment.stream
    return {
        "student_steps": experiment.strategy.clock.train_iterations,
        "experiences": stream.position,
        "generator_steps": stream.synthesizer.generator_steps,
        "images_generated": stream.synthesizer.images_generated,
        "teacher_queries": stream.teacher.queries,
    }


class Pictures:
    """Writes strips of images, ``samples/step-000900.png``, at evaluations 1, 2, 4, 8, … and the last.

    Args:
        folder: of the run.
        sources: each gives at most the requested number of images, or none, without side effects; by folder of strips.
        count: images per strip; 0 writes nothing.
    """

    def __init__(self, folder: Path, sources: Mapping[str, Callable[[int], Tensor | None]], count: int):
        self.folder = folder
        self.sources = sources
        self.count = count

    def take(self, evaluation: int, step: int, last: bool = False) -> None:
        """Write strips, if this evaluation (counted from 0) is to be pictured, as the ``last`` one is."""
        number = evaluation + 1
        if self.count == 0 or (number & (number - 1) and not last):
            return
        for name, draw in self.sources.items():
            images = draw(self.count)
            if images is not None:
                grid = make_grid(shown(images.clamp(0, 1).cpu()), nrow=self.count, padding=1, pad_value=1.0)
                pixels = grid.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                write_atomically(self.folder / name / f"step-{step:06d}.png", partial(_png, pixels))


def shown(images: Tensor) -> Tensor:
    """Images for a picture, grey or RGB; the mean of channels if there is another number of them."""
    return images if images.shape[1] in (1, 3) else images.mean(dim=1, keepdim=True)


def _png(pixels: object, file: object) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(file, format="PNG")  # type: ignore[arg-type]
