"""From a configuration to a run ready to train: teacher, student, stream, strategy, measures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lra.anatomy import batchnorm_layers
from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, Labelled
from lra.benchmarks.setup.networks import channels_last, network_for
from lra.benchmarks.setup.quantizing import quantized_student
from lra.benchmarks.setup.retaining import needs_stock_data, retention
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.meta.checks import MetaStepError, check_student
from lra.networks.normalized import Normalized
from lra.problem import Problem, Teacher
from lra.state import Owner
from lra.strategies.clocks import Calibration, ScheduleByEpoch
from lra.strategies.divergence import DivergenceGuard
from lra.strategies.evaluation import Evaluation
from lra.strategies.method import Parts, Setup
from lra.strategies.methods import METHODS
from lra.strategies.metrics import standard
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream, TestExperience, no_test_stream
from lra.view import require


@dataclass
class Experiment:
    """All parts of a run, built and seeded, not yet trained.

    Attributes:
        networks: by name: teacher, student, and what its source and its memory learn with.
        quantization: of a quantised student, its bits and what it is worth untrained.
    """

    config: RunConfig
    problem: Problem
    strategy: DataFreeDistillation
    stream: SynthesisStream
    evaluation: Evaluation
    networks: dict[str, nn.Module]
    quantization: dict[str, Any] | None = None


def budget(config: RunConfig) -> tuple[int, int]:
    """Experiences in a run, and student steps in the last of them."""
    experiences = config.schedule.experiences
    return experiences, config.schedule.student_steps - (experiences - 1) * config.schedule.steps_per_experience


def prepare(
    config: RunConfig,
    data: DataSet,
    trained: TrainedTeacher,
    test: Labelled | None,
    keep: Callable[[dict[str, Any]], None],
    loggers: Callable[[], list[Any]] = list,
) -> Experiment:
    """Build a run. Everything random comes from torch's global generator: seed it first.

    Args:
        config: what to build.
        data: its images and classes; no training split is touched.
        trained: the teacher.
        test: labelled images for evaluation, or ``None``.
        keep: called with the record of each evaluation.
        loggers: makes further Avalanche loggers, once all parts are known to fit together.

    Raises:
        UsageError: if parts do not fit together.
    """
    device = torch.device(config.device)
    problem = Problem(data.image, data.classes, trained.mean, trained.std, device)
    teacher = Teacher(trained.network.to(device))
    experiences, last = budget(config)
    schedule = config.schedule
    setup = Setup(
        problem,
        teacher,
        config.student.loss.distance(),
        schedule.batch_size,
        schedule.steps_per_experience,
        experiences,
        schedule.experiences_per_epoch,
    )
    student, quantization = _student(config, problem, trained, test)
    made = _made(config, setup, student)
    if config.meta.enabled:
        try:
            check_student(student, config.meta.engine)
        except MetaStepError as error:
            raise UsageError(f"--meta: {error}") from None
    stream = SynthesisStream(
        made.synthesizer, teacher, experiences, schedule.steps_per_experience, schedule.batch_size, last
    )
    optimiser = torch.optim.SGD(
        [*student.parameters(), *made.objective.parameters()],
        lr=config.student.lr,
        momentum=config.student.momentum,
        weight_decay=config.student.weight_decay,
    )
    retaining, scheduling = retention(config, setup), _schedule(config, optimiser, experiences)
    plugins = [*_calibration(config), *retaining, *made.plugins, *scheduling]
    probe_every = max(1, -(-config.evaluations // config.evaluation.probes))
    measures = standard(stream, made.objective, trained.answers, probe_every, config.evaluation.probe_size)
    evaluation = Evaluation(
        _test_stream(test, device),
        config.between,
        experiences,
        [*measures, *made.measures],
        schedule.experiences_per_epoch,
        keep,
        loggers(),
    )
    owners = [made.synthesizer, *(plugin for plugin in plugins if isinstance(plugin, Owner))]
    networks = {"student": student} | {name: part for owner in owners for name, part in owner.networks().items()}
    strategy = DataFreeDistillation(
        model=student,
        optimizer=optimiser,
        objective=made.objective,
        train_mb_size=schedule.batch_size,
        plugins=[*plugins, DivergenceGuard(networks), evaluation],
        evaluator=evaluation.evaluator,
        device=device,
        precision=getattr(torch, config.student.precision),
        stock_data=needs_stock_data(config),
    )
    return Experiment(
        config,
        problem,
        strategy,
        stream,
        evaluation,
        {"teacher": teacher.network} | networks,
        quantization,
    )


def _student(
    config: RunConfig, problem: Problem, trained: TrainedTeacher, test: Labelled | None
) -> tuple[nn.Module, dict[str, Any] | None]:
    """The student, and the record of a quantised one."""
    name = config.student.network
    if config.quantization is not None:
        return quantized_student(config.quantization, name, trained, problem, test)
    network = network_for(name, problem.classes, problem.image, "student.network")
    if config.student.channels_last:
        network = channels_last(network, name, problem.image)
    student = Normalized(network, problem.mean, problem.std).to(problem.device)
    if config.student.features:
        try:
            student.features_from(config.student.features)
        except ValueError as error:
            raise UsageError(f"student.features: {error}") from None
    return student, None


def _calibration(config: RunConfig) -> list[Calibration]:
    if config.quantization is None:
        return []
    return [Calibration(config.quantization.calibration, config.schedule.batch_size)]


def _made(config: RunConfig, setup: Setup, student: nn.Module) -> Parts:
    """What the method brings.

    Raises:
        UsageError: if its options do not fit each other, the teacher or the student; where it is the teacher's want of
            BatchNorm layers, with the methods that need none.
    """
    options = METHODS[config.method].Options.model_validate(config.synthesis)
    if options.needs_batchnorm and not batchnorm_layers(setup.teacher.network, setup.problem.image):
        others = ", ".join(name for name, method in METHODS.items() if not method.Options().needs_batchnorm)
        raise UsageError(
            f"method {config.method!r} compares BatchNorm statistics and the teacher has no BatchNorm: choose a "
            f"teacher with it (teacher.network), set {options.without_batchnorm}, or a method without: {others}"
        )
    try:
        parts = METHODS[config.method](setup, options).build(student)
        needs = parts.objective.needs.union(*(term.needs for term in parts.synthesizer.terms if term.weight))
        require(needs, setup.teacher, student, setup.problem.image)
    except ValueError as error:
        raise UsageError(f"method {config.method!r}: {error}") from None
    return parts


def _schedule(config: RunConfig, optimiser: torch.optim.Optimizer, experiences: int) -> list[ScheduleByEpoch]:
    epoch = config.schedule.experiences_per_epoch
    if config.schedule.lr == "constant":
        return []
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(1, -(-experiences // epoch)))
    return [ScheduleByEpoch(cosine, epoch)]


def _test_stream(test: Labelled | None, device: torch.device) -> Any:
    if test is None:
        return no_test_stream()
    return TestExperience(test.images.to(device), test.classes.to(device)).origin_stream
