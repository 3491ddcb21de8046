"""The first steps of a run, timed, without side effects: how long the run would take, and whether it works at all."""

import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from lra.benchmarks.errors import LraError, UsageError, in_one_line
from lra.benchmarks.progress import Introduction, at_steps
from lra.benchmarks.runs.kind import Trial
from lra.benchmarks.runs.machine import peak_memory, refuse_device, refuse_precision
from lra.benchmarks.runs.memory import bounded, sized
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.runs.training import built
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, Labelled, data_of
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.reuse import save_for_reuse
from lra.benchmarks.setup.teacher_training import train
from lra.benchmarks.setup.teachers import obtain, stand_in, untrained
from lra.images import unit
from lra.meta.checks import MetaDiverged, MetaStepError
from lra.strategies.extensions import PluginFailed
from lra.synthesis.batches import Diverged

TIMED = 4
"""Number of experiences that are timed, fewer where they are long; the last includes an evaluation."""
LIMIT = 20.0
"""Seconds after which no further step is timed."""
LESSONS = 12
"""Number of steps of a teacher's training that are timed."""


def trial(
    config: RunConfig,
    out: Path,
    began: float | None = None,
    introduction: Introduction | None = None,
    leave: Path | None = None,
) -> Trial:
    """Build a run, do its first steps, and say how long it would take; nothing is written, no teacher is trained.

    A teacher that is not trained yet is replaced by one with random weights, which costs as much to query.

    Args:
        config: of the run.
        out: parent of run folders, where it would go.
        began: `time.perf_counter` when starting up began, if not now.
        introduction: printed once it is built, when only its steps can still fail.
        leave: a folder for what the run would leave to a later one, as it is after these steps.

    Raises:
        LraError: for whatever the run itself would refuse.
    """
    began = time.perf_counter() if began is None else began
    introduction = introduction or Introduction(quiet=True)
    with in_one_line():
        RunFolder(out).refuse_unwritable()
        refuse_device(config.device)
        refuse_precision(config)
        data = data_of(config.data)
        config = sized(config, data)
        test = data.load("test") if config.data.test else None
        there = not untrained(config.teacher, data)
        if there:
            teacher = obtain(config.teacher, data, test, config.device, quiet=True, introduction=introduction)
        else:
            teacher = stand_in(config, data)
        config.identity(teacher.sha256)
        experiment = built(_shortened(config), data, teacher, test, lambda record: None)
        start_up = time.perf_counter() - began
        introduction.say()
        try:
            seconds, basis = _timed(experiment, config, test)
        except (Diverged, MetaDiverged) as error:
            seconds, basis = None, str(error)
        except MetaStepError as error:
            raise UsageError(f"--meta: {error}") from None
        except PluginFailed as error:
            raise LraError(str(error)) from None
        if leave is not None:
            save_for_reuse(leave, experiment, teacher)
        taught = 0.0 if there else lessons(config, data)
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in experiment.networks.items()}
    peak = peak_memory(config.device)
    return Trial(start_up, taught, seconds, basis, peak, parameters, config.threads or 1)


def _shortened(config: RunConfig) -> RunConfig:
    schedule = config.schedule
    steps = min(schedule.student_steps, TIMED * schedule.steps_per_experience)
    # How often is not what is measured here, and belongs to the length.
    every = max(1, config.between // schedule.experiences_per_epoch)
    return config.model_copy(
        update={
            "schedule": schedule.model_copy(update={"steps": steps}),
            "evaluation": config.evaluation.model_copy(update={"every": every}),
        }
    )


class _Enough(BaseException):
    """No further step is to be timed. No ``except Exception`` on the way, say in a plugin, should catch this."""


class _Stopwatch:
    """Times of experiences, of the student's steps and of evaluations.

    Attributes:
        spans: seconds of each experience that is over, but for its evaluation.
        made: seconds that making the samples of the open experience took, once that is done.
        steps: seconds of each of the student's steps in it, but for the first.
        inner: steps of synthesis in it so far.
        evaluations: seconds of each.
    """

    def __init__(self, experiment: Experiment):
        self.device, self.student = experiment.config.device, experiment.strategy.optimizer
        self.spans: list[float] = []
        self.evaluations: list[float] = []
        self._evaluate = experiment.strategy.eval
        experiment.strategy.eval = self._evaluated
        experiment.stream.at_rest = self.rest
        self.began = self.now()
        self._open()

    def _open(self) -> None:
        self.opened, self.away = self.now(), 0.0
        self.made: float | None = None
        self.steps: list[float] = []
        self.inner: dict[int, int] = {}

    def now(self) -> float:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def rest(self) -> None:
        self.spans.append(self.now() - self.opened - self.away)
        self._open()

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        now = self.now()
        if optimiser is not self.student:
            self.inner[id(optimiser)] = self.inner.get(id(optimiser), 0) + (self.made is None)
        elif self.made is None:
            self.made, self.last = now - self.opened, now
        else:
            self.steps.append(now - self.last)
            self.last = now
        if now - self.began > LIMIT and (self.made is None or self.steps):
            raise _Enough

    def _evaluated(self, *given: Any, **named: Any) -> Any:
        before = self.now()
        found = self._evaluate(*given, **named)
        self.evaluations.append(self.now() - before)
        self.away += self.evaluations[-1]
        return found


def _timed(experiment: Experiment, config: RunConfig, test: Labelled | None) -> tuple[float, str]:
    """Seconds of the whole run, and what they are estimated from."""
    watch = _Stopwatch(experiment)
    with bounded(config.device), suppress(_Enough), at_steps(watch.step):
        experiment.strategy.train(experiment.stream)
    evaluation = median(watch.evaluations) if watch.evaluations else _tested(experiment, test)
    seconds, basis = _whole(watch, config)
    return seconds + evaluation * config.evaluations, basis


def _whole(watch: _Stopwatch, config: RunConfig) -> tuple[float, str]:
    n, schedule = config.schedule.experiences, config.schedule
    if watch.spans:
        # The first may bring a warm-up; a single one is all there is to go by.
        first, *others = watch.spans
        each = median(others) if others else first / _rounds(config)
        share = schedule.student_steps / (schedule.steps_per_experience * n)
        return first + each * (n * share - 1), f"from {len(watch.spans)} timed experiences"
    if watch.made is not None and watch.steps:
        step = fmean(watch.steps)
        making = max(0.0, watch.made - step)
        spent = making + making / _rounds(config) * (n - 1)
        return spent + step * schedule.student_steps, f"from {len(watch.steps) + 1} timed steps of the student"
    done = max(watch.inner.values())
    wanted = config.synthesis.get("steps", 1) * config.synthesis.get("rounds", 1)
    each = (watch.now() - watch.opened) / done * wanted
    making = each * _rounds(config) + each * (n - 1)
    return making, f"at least: from {done} timed steps of synthesis, without those of the student"


def _rounds(config: RunConfig) -> float:
    """Batches of the first experience, with those of a warm-up, by those of any other."""
    rounds = config.synthesis.get("rounds", 1)
    warmup = config.synthesis.get("warmup", 0)
    return (warmup + rounds) / rounds if "rounds" in config.synthesis else 1.0 + warmup


def _tested(experiment: Experiment, test: Labelled | None) -> float:
    """Seconds of passing the test set through the student, estimated from a part of it."""
    if test is None:
        return 0.0
    part = test.images[:512].to(experiment.config.device)
    model = experiment.strategy.model.eval()
    before = time.perf_counter()
    with torch.no_grad():
        model(unit(part))
    return (time.perf_counter() - before) * len(test.images) / len(part)


def lessons(config: RunConfig, data: DataSet) -> float:
    """Seconds of the teacher's training, estimated from its first steps; nothing of it is kept.

    Raises:
        LraError: as `train`.
    """
    options, times = config.teacher, [time.perf_counter()]

    def look(optimiser: torch.optim.Optimizer) -> None:
        times.append(time.perf_counter())
        if len(times) > LESSONS + 1 or times[-1] - times[0] > LIMIT:
            raise _Enough

    with tempfile.TemporaryDirectory(prefix="lra-") as scratch, suppress(_Enough), at_steps(look):
        train(options, data, Path(scratch) / "teacher.safetensors", torch.device(config.device), quiet=True)
    spans = [after - before for before, after in pairwise(times)]
    steps = options.epochs * -(-len(data.load("train").images) // options.batch_size)
    return spans[0] + fmean(spans[1:] or spans) * (steps - 1)
