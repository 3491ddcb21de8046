"""The state of a student at one moment: fidelity to its teacher, and alignment of its gradients (LRA, CVPR 2023).

Fidelity is measured on predicted classes and on probabilities; gradient alignment shows whether acquiring new samples
and retaining old ones pull in the same direction.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lra.distances import js
from lra.distillation.objective import Objective
from lra.problem import Batch
from lra.state import untouched

AT_ONCE = 4096
"""Samples whose probabilities are in memory at the same time, in double precision."""


def agreement(student: Tensor, teacher: Tensor) -> float:
    """Share in [0, 1] of samples on which the argmax of logits (n, K) agree ("Agree@1")."""
    return (student.argmax(dim=1) == teacher.argmax(dim=1)).double().mean().item()


def loyalty(student: Tensor, teacher: Tensor) -> float:
    """Probability loyalty in [0, 1]: mean of 1 - √JSD with the divergence in bits.

    1 for identical predictions, 0 for disjoint one-hot ones. The square root of the Jensen-Shannon divergence
    is a distance; base 2 makes it at most 1.
    """
    return loyalties(student, teacher)[0]


def loyalty_reference(student: Tensor, teacher: Tensor) -> float:
    """Loyalty as the AdaDFKD benchmark computes it: mean of 1 - JSD^¼, the divergence in nats.

    The root is taken twice there, so that the range is [1 - (ln 2)^¼, 1] = [0.0876, 1]. Only for comparison with
    published values.
    """
    return loyalties(student, teacher)[1]


def loyalties(student: Tensor, teacher: Tensor) -> tuple[float, float]:
    """`loyalty` and `loyalty_reference`, from divergences that are computed once, in chunks of samples."""
    parts = zip(student.split(AT_ONCE), teacher.split(AT_ONCE), strict=True)
    nats = torch.cat([js(ours.double(), theirs.double()) for ours, theirs in parts]).clamp(0, math.log(2))
    return (1 - (nats / math.log(2)).sqrt()).mean().item(), (1 - nats**0.25).mean().item()


def class_histogram(logits: Tensor) -> Tensor:
    """Counts (K,) of the argmax of logits (n, K)."""
    return (logits.argmax(dim=1)[:, None] == torch.arange(logits.shape[1], device=logits.device)).sum(dim=0)


def class_accuracy(logits: Tensor, classes: Tensor) -> Tensor:
    """Accuracy (K,) in [0, 1] on the samples of each class, from logits (n, K); NaN for a class without samples."""
    count = logits.shape[1]
    right = logits.argmax(dim=1) == classes
    return torch.bincount(classes[right], minlength=count).double() / torch.bincount(classes, minlength=count)


def confusion(logits: Tensor, classes: Tensor) -> Tensor:
    """Confusion matrix (K, K): counts of samples of each class (rows) by predicted class (columns)."""
    count = logits.shape[1]
    return torch.bincount(classes * count + logits.argmax(dim=1), minlength=count**2).view(count, count)


def cosine(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> Tensor:
    """Cosine in [-1, 1] of two gradients given parameter by parameter; 0 if either vanishes."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    dot = sum((a * b).sum() for a, b in pairs)
    norms = [sum((g**2).sum() for g in side if g is not None) for side in (first, second)]
    return torch.as_tensor(dot / (norms[0] * norms[1]) ** 0.5).nan_to_num(0.0)


class Alignment(NamedTuple):
    """Losses at the student's current weights, and the cosine of their gradients."""

    cosine: float
    acquisition: float
    retention: float


def gradient_alignment(student: nn.Module, objective: Objective, new: Batch, replayed: Batch) -> Alignment:
    """cos(∇L_acq(θ), ∇L_ret(θ)), in training mode, leaving the student unchanged."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    losses, gradients = [], []
    with untouched(student):
        student.train()
        for batch in (new, replayed):
            value = objective(student, batch)
            losses.append(value.item())
            gradients.append(torch.autograd.grad(value, parameters, allow_unused=True))
    return Alignment(cosine(*gradients).item(), *losses)
