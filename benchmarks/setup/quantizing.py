"""A quantised copy of the teacher as the student, and what it is worth before it learns anything."""

from typing import Any

import torch
from torch import nn

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.config import QuantizationOptions
from lra.benchmarks.setup.datasets import Labelled
from lra.benchmarks.setup.teachers import TrainedTeacher, answers_of, percent_right
from lra.metrics.fidelity import agreement
from lra.networks.families import canonical
from lra.problem import Problem
from lra.quantization.network import Unquantizable, calibrate, quantized, size


def quantized_student(
    options: QuantizationOptions, named: str, trained: TrainedTeacher, problem: Problem, test: Labelled | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Quantise a copy of the teacher, with ranges from Gaussian noise of the data's mean and deviation.

    Args:
        options: bits and the amount of noise.
        named: the student's network according to the configuration.
        trained: the teacher.
        problem: image, mean and deviation.
        test: to measure it.

    Returns:
        The student, images in [0, 1] -> logits; and for ``result.json`` its bits, its size, and accuracy and
        agreement with the teacher as it stands, in percent: those of min-max post-training quantization on noise.

    Raises:
        UsageError: if the student is to be another network than the teacher, or has a layer that cannot be quantised.
    """
    if canonical(named) != canonical(trained.name):
        raise UsageError(
            f"student.network = {named!r}: a quantised student is a copy of its teacher, say "
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
    """Percent right, and percent where both name one class."""
    answers = answers_of(network, test, device)
    teacher = answers_of(trained.network, test, device) if trained.answers is None else trained.answers
    return {"accuracy": percent_right(answers, test.classes), "agreement": 100 * agreement(answers, teacher)}
