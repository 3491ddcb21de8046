"""A run that learns classes a few at a time, from its start, or from the last experience that is saved, to its end."""

import logging
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lra.benchmarks.errors import GivenUp, Interrupted, LraError, UsageError, at_a_step, in_one_line, interrupts
from lra.benchmarks.increment.configuration import IncrementConfig, checked
from lra.benchmarks.progress import Introduction, Progress, at_steps, tell
from lra.benchmarks.records import INCREMENT
from lra.benchmarks.runs.kind import Trial
from lra.benchmarks.runs.machine import Stopwatch, compute_with, environment, peak_memory
from lra.benchmarks.runs.memory import FLOAT, LEARNT, Demand, bounded, refuse_beyond
from lra.benchmarks.runs.run_folder import SCHEMA, MetricsFile, RunFolder
from lra.benchmarks.setup.datasets import DataSet
from lra.benchmarks.setup.networks import network_size
from lra.benchmarks.setup.user_code import remember
from lra.benchmarks.text import experience_line
from lra.images import unit
from lra.meta.checks import MetaStepError
from lra.networks import build
from lra.networks.normalized import Normalized
from lra.state import State, seed_everything
from lra.strategies.increment.benchmark import ClassIncrementalProtocol, capture, growing, restore, split
from lra.strategies.increment.datafree import DataFreeReplayPlugin
from lra.strategies.increment.plugins import CarryingPlugin
from lra.strategies.increment.strategies import DATA_FREE, GENERATING, RESUMABLE, STRATEGIES, TRAINED_ONCE, Plan

TIMED = 6
"""Steps of each sort that a trial times."""

log = logging.getLogger("lra")


class Learning:
    """A run in progress.

    Args:
        config: with the threads it takes.
        folder: of the run.
        data: with the classes to split.
        quiet: nothing on stderr.

    Attributes:
        strategy: what learns.
        benchmark: what it learns.
        protocol: how it is tested.
        order: of the classes.

    Raises:
        LraError: if its parts do not fit together.
    """

    def __init__(self, config: IncrementConfig, folder: RunFolder, data: DataSet, quiet: bool = False):
        self.config, self.folder, self.quiet = config, folder, quiet
        self.watch, self.resumable = Stopwatch(), config.strategy in RESUMABLE
        train, test = data.load("train"), data.load("test")
        seed_everything(config.seed)
        self.order = order_of(data.classes, config)
        self.protocol = ClassIncrementalProtocol(drop_last=config.options.drop_last)
        with worded(config):
            network = build(config.model, data.classes // config.experiences, data.image)
            # Unless asked for, nothing of classes that are still to come: not even their mean.
            grown = growing(network, data.classes // config.experiences, data.image)
            model = Normalized(grown, *normalisation(data, config))
            self.benchmark = split(
                (unit(train.images), train.classes),
                (unit(test.images), test.classes),
                self.order,
                config.experiences,
            )
            refuse_no_minibatch(config, [len(experience.dataset) for experience in self.benchmark.train_stream])
            device = torch.device(config.device)
            plan = Plan(model, data.image, config.steps, config.options, self.protocol.evaluator, device)
            self.strategy = STRATEGIES[config.strategy](plan)
            for plugin in self.strategy.plugins:
                if isinstance(plugin, CarryingPlugin):
                    plugin.before_training(self.strategy)  # it refuses models then

    def open(self, begin: Callable[[], None]) -> None:
        """Start the folder, or take up what is saved there."""
        saved = self.folder.restore()
        if saved is None:
            begin()
            if (self.folder.path / "config.yaml").is_file() and not self.resumable:
                log.warning("what %s keeps cannot be saved: the run begins again", self.config.strategy)
            self.metrics = MetricsFile(self.folder.path / "metrics.jsonl", 0)
            self.folder.write_config(self.config.tree())
            remember((self.config.code or {}).values())
            self.folder.write_json("env.json", environment() | {"processes": 1})
        else:
            self._take_up(saved)
            begin()
            log.info("resumed after experience %d of %d", len(self.protocol.rows), self.config.experiences)
        self.watch.start()

    def complete(self) -> None:
        """Do the experiences that are left, and write the result.

        Raises:
            LraError: if the LRA step cannot be taken, or options do not fit together.
            Interrupted: at a signal.
        """
        config, protocol = self.config, self.protocol
        with interrupts() as stopping, bounded(config.device) as lift, Steps(config, self._counts, self.quiet) as steps:

            def learnt(row: list[float]) -> None:
                lift()
                self.metrics.append(self._record())
                steps.learnt(len(row))
                steps.say(experience_line(row, config.experiences))
                if self.resumable and len(row) < config.experiences:
                    self.folder.save(self._state())
                if stopping:
                    raise self._stopped(stopping)

            steps.learnt(len(protocol.rows))
            try:
                with worded(config), at_a_step(stopping, lambda: True):
                    protocol.train_and_test(self.strategy, self.benchmark, learnt)
            except GivenUp:
                raise self._stopped(stopping) from None
        self.folder.write_json("result.json", self._result())

    def estimated(self, config: IncrementConfig) -> float:
        """Seconds that all steps of ``config`` would take, by those of this run's first two experiences."""
        strategy, tests = self.strategy, self.benchmark.test_stream
        own_planned, total = planned(config), 0.0
        for index, experience in enumerate(self.benchmark.train_stream[:2]):
            times: dict[bool, list[float]] = {True: [], False: []}
            last = [time.perf_counter()]

            def stepped(optimiser: object, times: dict[bool, list[float]] = times, last: list[float] = last) -> None:
                if not self._counts(optimiser):
                    return
                now = time.perf_counter()
                times[optimiser is strategy.optimizer].append(now - last[0])
                last[0] = now

            with at_steps(stepped):
                strategy.train(experience, eval_streams=[])
            own, others = own_planned[index]
            spent = own * median(times[True] or [0.0]) + others * median(times[False] or [0.0])
            total += spent * (config.experiences - 1 if index else 1)
        begun = time.perf_counter()
        strategy.eval(tests[:1])
        return total + (time.perf_counter() - begun) * config.experiences * (config.experiences + 1) / 2

    def _counts(self, optimiser: object) -> bool:
        """Whether its steps are among those `planned`, and not taken along with the model's."""
        return not any(optimiser in p.companions for p in self.strategy.plugins if isinstance(p, CarryingPlugin))

    def _stopped(self, stopping: Sequence[int]) -> Interrupted:
        again = "continue" if self.resumable else f"start over, as {self.config.strategy} keeps what cannot be saved,"
        remedy = f"{again} with lra-bench resume {self.folder.resumed}"
        return Interrupted(stopping[0] if stopping else signal.SIGTERM, remedy)

    def _record(self) -> dict[str, Any]:
        rows = self.protocol.rows
        rates = [p.rates for p in self.strategy.plugins if isinstance(p, DataFreeReplayPlugin) and p.rates]
        return {
            "evaluation": len(rows) - 1,
            "experience": len(rows),
            "student_step": sum(own for own, _ in planned(self.config)[: len(rows)]),
            "accuracy": sum(rows[-1]) / len(rows),
            "accuracies": rows[-1],
            **({"alpha": rates[0]} if rates else {}),
        }

    def _state(self) -> State:
        own = {"records": len(self.metrics.records), "rows": self.protocol.rows}
        return capture(self.strategy) | own | self.watch.read()

    def _take_up(self, saved: State) -> None:
        with self.folder.taking_up():
            self.metrics = MetricsFile(self.folder.path / "metrics.jsonl", saved["records"])
            self.watch.take_up(saved)
            rows = [list(map(float, row)) for row in saved["rows"]]
            restore(saved, self.strategy, self.benchmark.train_stream[: len(rows)])
            self.protocol.take_up(rows)

    def _result(self) -> dict[str, Any]:
        config, scores = self.config, self.protocol.scores()
        carrying = [plugin for plugin in self.strategy.plugins if isinstance(plugin, CarryingPlugin)]
        return {
            "schema": SCHEMA,
            "status": "finished",
            "kind": INCREMENT,
            "seed": config.seed,
            "config": config.tree(),
            "meta": config.meta,
            "class_order": self.order,
            "accuracy_matrix": scores.matrix,
            "accuracy": scores.accuracy,
            "average_incremental_accuracy": scores.average_incremental,
            "forgetting": scores.forgetting,
            "forgetting_from_best": scores.forgetting_from_best,
            "cost": {
                "student_steps": config.student_steps,
                "experiences": config.experiences,
                "generator_steps": sum(plugin.generator_steps for plugin in carrying),
                "class_statistics": sum(plugin.class_statistics for plugin in carrying),
                **self.watch.read(),
                "peak_memory_mb": peak_memory(config.device),
            },
            "config_hash": self.folder.config_hash,
            "environment": environment(),
        }


@contextmanager
def worded(config: IncrementConfig) -> Iterator[None]:
    """Say what is wrong with a configuration that its parts refuse.

    Raises:
        LraError: if the LRA step cannot be taken.
        UsageError: for anything else.
    """
    try:
        yield
    except MetaStepError as error:
        raise LraError(f"{config.strategy} with --meta: {error}; set alpha with --set alpha=...") from None
    except ValueError as error:
        raise UsageError(f"{config.benchmark}, {config.strategy}, {config.model}: {error}") from None


class Steps:
    """Progress in steps of optimisers, of the model's and of what replays."""

    def __init__(self, config: IncrementConfig, counts: Callable[[object], bool], quiet: bool):
        self.counts = counts
        self.planned = [own + others for own, others in planned(config)]
        self.experience = self.taken = 0
        self.quiet = quiet
        self.progress = Progress(sum(self.planned), "steps", config.strategy, quiet)

    def __enter__(self) -> "Steps":
        self.progress.show(0)
        self.watch = at_steps(self._step)
        self.watch.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.watch.__exit__(None, None, None)
        self.progress.close()

    def learnt(self, experiences: int) -> None:
        """Say that ``experiences`` are over."""
        self.experience, self.taken = experiences, 0
        self.progress.done = sum(self.planned[:experiences])

    def say(self, line: str) -> None:
        """A line of its own, on stderr and in the log."""
        log.info("%s", line)
        if not self.quiet:
            self.progress.clear()
            tell(line)

    def _step(self, optimiser: object) -> None:
        if not self.counts(optimiser):
            return
        self.taken += 1
        if self.progress.due():
            within = min(self.taken, self.planned[self.experience])
            where = f"experience {self.experience + 1}/{len(self.planned)}"
            self.progress.show(sum(self.planned[: self.experience]) + within, where)


def order_of(classes: int, config: IncrementConfig) -> list[int]:
    """The order of so many ``classes``, of the seed alone."""
    order = torch.randperm(classes).tolist()
    if config.options.class_order == "python":
        order = [*range(classes)]
        random.Random(config.seed).shuffle(order)
    return order


def refuse_no_minibatch(config: IncrementConfig, sizes: Sequence[int]) -> None:
    """Refuse experiences of so many images that leave none where an epoch's last ones are left out.

    Raises:
        ValueError: for one.
    """
    if config.options.drop_last and (least := min(sizes)) < config.options.minibatch:
        raise ValueError(
            f"drop_last leaves no batch of an experience of {least} images at minibatch {config.options.minibatch}: "
            f"set minibatch to {least} or less, or drop_last=false"
        )


def normalisation(data: DataSet, config: IncrementConfig) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each channel, as ``config`` has them.

    Raises:
        ValueError: if they are to be published, and are not.
    """
    if config.options.normalisation == "grey":
        return [0.5] * data.image[0], [0.5] * data.image[0]
    if data.published is None:
        raise ValueError(f"{data.name} has no published normalisation: set normalisation=grey")
    return data.published.mean, data.published.std


def planned(config: IncrementConfig) -> list[tuple[int, int]]:
    """Steps of the model and of all other optimisers, in each experience."""
    options, steps = config.options, config.steps
    first = steps if config.strategy == "avalanche-generative" else 0
    generated = options.generator_steps if config.strategy in GENERATING else 0
    more = generated + (options.align_steps if config.strategy in DATA_FREE else 0)
    later = 0 if config.strategy in TRAINED_ONCE else steps
    return [(steps, first), *[(later, first + more)] * (config.experiences - 1)]


def sized(config: IncrementConfig, data: DataSet, threads: int) -> IncrementConfig:
    """``config`` with the ``threads`` that torch takes from now on, if the run fits in memory.

    Raises:
        UsageError: if it does not, or the network cannot be built.
    """
    size, options = network_size("--model", config.model, data), config.options
    compute_with(threads)
    pixels = FLOAT * prod(data.image)
    images = len(data.load("train").images) + len(data.load("test").images)
    each = size.kept + pixels
    shown = options.minibatch * (2 if config.strategy in GENERATING else 1)
    refuse_beyond(
        config.device,
        [Demand("benchmark", config.benchmark, images * pixels), Demand("model", config.model, LEARNT * size.weights)],
        [
            Demand("minibatch", options.minibatch, shown * each),
            *([Demand("generator_batch", options.generator_batch, options.generator_batch * each)] * (shown > 1)),
        ],
    )
    return config.model_copy(update={"threads": threads})


def trial(
    config: IncrementConfig,
    out: Path,
    threads: int,
    began: float | None = None,
    introduction: Introduction | None = None,
) -> Trial:
    """Do a few steps of every sort in the first two experiences, and say what all of the run would take.

    Args:
        config: of the run.
        out: parent of run folders, where it would go.
        threads: that it takes.
        began: `time.perf_counter` when starting up began, if not now.
        introduction: said once it is built.

    Raises:
        LraError: for whatever the run itself would refuse.
    """
    began = time.perf_counter() if began is None else began
    with in_one_line():
        RunFolder(out).refuse_unwritable()
        data = checked(config)
        data.require()
        config = sized(config, data, threads)
        options = {name: min(TIMED, getattr(config.options, name)) for name in ("generator_steps", "align_steps")}
        few = {"steps": min(TIMED, config.steps), "options": config.options.model_copy(update=options)}
        work = Learning(config.model_copy(update=few), RunFolder(out), data, quiet=True)
        start_up = time.perf_counter() - began
        if introduction is not None:
            introduction.say()
        with worded(config), bounded(config.device):
            seconds = work.estimated(config)
    parameters = {"model": sum(p.numel() for p in work.strategy.model.parameters())}
    basis = "from a few steps of each sort"
    return Trial(start_up, 0.0, seconds, basis, peak_memory(config.device), parameters, config.threads or 1)
