"""Build a run from a configuration: teacher, student, stream, strategy and measures."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from lra.anatomy import batchnorm_layers
from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.config import QuantizationOptions, RunConfig
from lra.benchmarks.setup.datasets import DataSet, Labelled
from lra.benchmarks.setup.networks import in_best_order, network_for, ordered
from lra.benchmarks.setup.retaining import needs_stock_data, retention
from lra.benchmarks.setup.teachers import TrainedTeacher, answers_of, at_once, percent_right
from lra.meta.checks import MetaStepError, check_student
from lra.metrics.student import agreement
from lra.networks.families import canonical
from lra.networks.normalized import Normalized
from lra.problem import Problem, Teacher
from lra.quantization.network import Unquantizable, calibrate, quantized, size
from lra.state import owners
from lra.strategies.divergence import DivergenceGuard
from lra.strategies.evaluation import Evaluation
from lra.strategies.method import Parts, Setup
from lra.strategies.methods import METHODS
from lra.strategies.metrics import standard
from lra.strategies.plugins import Calibration, ScheduleByEpoch
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream, TestExperience, no_test_stream
from lra.strategies.student_average import AverageAccuracy, StudentAverage
from lra.view import require


@dataclass
class Experiment:
    """All parts of a run, built and seeded, not yet trained.

    Attributes:
        networks: by name: teacher, student, and the networks of its synthesizer and memory.
        quantization: for a quantised student, its bits and its quality before training.
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
        config: of the run.
        data: its images and classes; no training split is loaded.
        trained: the teacher.
        test: labelled images for evaluation, or ``None``.
        keep: called with the record of each evaluation.
        loggers: makes further Avalanche loggers, once all parts are known to fit together.

    Raises:
        UsageError: if parts do not fit together.
    """
    device = torch.device(config.device)
    problem = Problem(data.image, data.classes, trained.mean, trained.std, device)
    precision = getattr(torch, config.compute.precision)
    teacher = Teacher(trained.network.to(device), precision)
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
    in_best_order(trained.network, problem.image, config.device, training=False)
    parts = _parts(config, setup, student)
    if config.meta.enabled:
        try:
            check_student(student, config.meta.engine)
        except MetaStepError as error:
            raise UsageError(f"--meta: {error}") from None
    stream = SynthesisStream(
        parts.synthesizer, teacher, experiences, schedule.steps_per_experience, schedule.batch_size, last, precision
    )
    optimiser = torch.optim.SGD(
        [*student.parameters(), *parts.objective.parameters()],
        lr=config.student.lr,
        momentum=config.student.momentum,
        weight_decay=config.student.weight_decay,
    )
    retaining = retention(config, replace(setup, source=parts.synthesizer))
    scheduling = _schedule(config, optimiser, experiences)
    averaging = [] if config.student.ema is None else [StudentAverage(student, config.student.ema)]
    plugins = [*_calibration(config), *retaining, *parts.plugins, *scheduling, *averaging]
    probe_every = max(1, -(-config.evaluations // config.evaluation.probes))
    measures = standard(stream, parts.objective, trained.answers, probe_every, config.evaluation.probe_size)
    evaluation = Evaluation(
        _test_stream(test, device),
        config.between,
        experiences,
        [*measures, *parts.measures, *(AverageAccuracy(kept.average.network) for kept in averaging)],
        schedule.experiences_per_epoch,
        keep,
        loggers(),
    )
    learning = owners([parts.synthesizer, *plugins])
    networks = {"student": student} | {name: part for owner in learning for name, part in owner.networks().items()}
    strategy = DataFreeDistillation(
        model=student,
        optimizer=optimiser,
        objective=parts.objective,
        train_mb_size=schedule.batch_size,
        eval_mb_size=at_once(device),
        plugins=[*plugins, DivergenceGuard(networks), evaluation],
        evaluator=evaluation.evaluator,
        device=device,
        precision=getattr(torch, config.student.precision),
        drawn_on_device=config.compute.random == "device",
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
        return _quantized_student(config.quantization, name, trained, problem, test)
    network = network_for(name, problem.classes, problem.image, "student.network")
    ordered(network, config.student, problem.image, config.device)
    student = Normalized(network, problem.mean, problem.std).to(problem.device)
    if config.student.features:
        try:
            student.features_from(config.student.features)
        except ValueError as error:
            raise UsageError(f"student.features: {error}") from None
    return student, None


def _quantized_student(
    options: QuantizationOptions, named: str, trained: TrainedTeacher, problem: Problem, test: Labelled | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Quantise a copy of the teacher, with ranges from Gaussian noise with the data's mean and standard deviation.

    Args:
        options: bits and the amount of noise.
        named: the student's network according to the configuration.
        trained: the teacher.
        problem: image, mean and standard deviation.
        test: to measure it.

    Returns:
        The student, images in [0, 1] -> logits; and for ``result.json`` its bits, its size, and its accuracy and
        agreement with the teacher before training, in percent: those of min-max post-training quantization on noise.

    Raises:
        UsageError: if the student and the teacher are different networks, or a layer cannot be quantised.
    """
    if canonical(named) != canonical(trained.name):
        raise UsageError(
            f"student.network = {named!r}: a quantised student is a copy of its teacher: set "
            f"student.network={trained.name}"
        )
    try:
        network = quantized(trained.network, options).to(problem.device)
    except Unquantizable as error:
        raise UsageError(f"teacher {trained.name}: {error}") from None
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (problem.mean, problem.std))
    calibrate(network, [(mean + std * torch.randn(options.noise, *problem.image)).to(problem.device)])
    network.requires_grad_(True)
    bits = {"weight_bits": options.weight_bits, "activation_bits": options.activation_bits}
    before = None if test is None else _fidelity(network, trained, test, problem.device)
    return network, {"simulated": True, **bits, **size(network), "post_training": before}


def _fidelity(network: nn.Module, trained: TrainedTeacher, test: Labelled, device: torch.device) -> dict[str, float]:
    """Accuracy, and agreement with the teacher, in percent."""
    answers = answers_of(network, test, device)
    teacher = answers_of(trained.network, test, device) if trained.answers is None else trained.answers
    return {"accuracy": percent_right(answers, test.classes), "agreement": 100 * agreement(answers, teacher)}


def _calibration(config: RunConfig) -> list[Calibration]:
    if config.quantization is None:
        return []
    return [Calibration(config.quantization.calibration, config.schedule.batch_size)]


def _parts(config: RunConfig, setup: Setup, student: nn.Module) -> Parts:
    """The parts of the method.

    Raises:
        UsageError: if its options do not fit each other, the teacher or the student; if the teacher lacks BatchNorm,
            with the methods that need none.
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
    epoch, rise = config.schedule.experiences_per_epoch, config.schedule.rise
    rising = [LinearLR(optimiser, start_factor=1 / rise, total_iters=max(1, rise - 1))] if rise else []
    if config.schedule.lr == "constant":
        return [ScheduleByEpoch(each, epoch) for each in rising]
    falling = max(1, -(-experiences // epoch) - rise)
    cosine = CosineAnnealingLR(optimiser, T_max=falling, eta_min=config.schedule.least_lr)
    whole = SequentialLR(optimiser, [*rising, cosine], milestones=[rise]) if rising else cosine
    return [ScheduleByEpoch(whole, epoch)]


def _test_stream(test: Labelled | None, device: torch.device) -> Any:
    if test is None:
        return no_test_stream()
    return TestExperience(test.images.to(device), test.classes.to(device)).origin_stream
