"""Gradient alignment: do learning the new and keeping the old pull the same way? (LRA, CVPR 2023)"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lra.distillation.objective import Objective
from lra.preservation import untouched
from lra.problem import Batch


def cosine(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> Tensor:
    """Cosine in [-1, 1] of two gradients given parameter by parameter; 0 if either vanishes."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    dot = sum((a * b).sum() for a, b in pairs)
    norms = [sum((g**2).sum() for g in side if g is not None) for side in (first, second)]
    return torch.as_tensor(dot / (norms[0] * norms[1]) ** 0.5).nan_to_num(0.0)


class Alignment(NamedTuple):
    """Losses at the student's present weights and the cosine of their gradients."""

    cosine: float
    acquisition: float
    retention: float


def gradient_alignment(student: nn.Module, objective: Objective, new: Batch, replayed: Batch) -> Alignment:
    """cos(∇L_acq(θ), ∇L_ret(θ)), in training mode, leaving the student untouched."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    losses, gradients = [], []
    with untouched(student):
        student.train()
        for batch in (new, replayed):
            value = objective(student, batch)
            losses.append(value.item())
            gradients.append(torch.autograd.grad(value, parameters, allow_unused=True))
    return Alignment(cosine(*gradients).item(), *losses)
