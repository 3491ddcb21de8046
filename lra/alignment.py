"""Gradient alignment: do learning the new and keeping the old pull the same way? (LRA, CVPR 2023)"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lra.distillation import DistillationLoss
from lra.preservation import untouched
from lra.problem import Batch


def cosine(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> Tensor:
    """Cosine in [-1, 1] of two gradients given parameter by parameter; 0 if either vanishes."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    dot = sum((a * b).sum() for a, b in pairs)
    norms = [sum((g**2).sum() for g in side if g is not None) for side in (first, second)]
    return torch.as_tensor(dot / (norms[0] * norms[1]) ** 0.5).nan_to_num(0.0)


def gradient_alignment(student: nn.Module, loss: DistillationLoss, new: Batch, replayed: Batch) -> float:
    """cos(∇L_acq(θ), ∇L_ret(θ)) at the student's present weights, in training mode, leaving it untouched."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    with untouched(student):
        student.train()
        gradients = [
            torch.autograd.grad(loss(student(b.images), b.logits), parameters, allow_unused=True)
            for b in (new, replayed)
        ]
    return cosine(*gradients).item()
