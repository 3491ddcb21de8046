"""Adversarial terms: synthesis looks for images on which the student differs from the teacher."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.distances import Distance, js, js_reference
from lra.randomness import normal
from lra.synthesis.terms.term import Term, Weighing
from lra.view import View


class Adversarial(Term):
    """Minus the distance between student and teacher: the source looks for what the student gets wrong.

    Source: ZSKT (Micaelli and Storkey, NeurIPS 2019) and DFAD; masked in CMI, Fast, RGAL and NAYER.

    Args:
        weight: factor in the sum.
        distance: of logits, per sample; the student's own objective or another, always given explicitly.
        mask: ``"agree"`` includes only samples on which student and teacher predict the same class, more of them as the
            student improves; ``"asked"`` only those on which the teacher predicts the target class (DLIG).
        over: with a mask, divide by ``"all"`` samples, as released, or by the ``"masked"``-in ones.
        detach_teacher: let the gradient flow through the student alone.
        weigh: gives each image a weight; all are equal if not given.
    """

    name = "adversarial"
    competitive = True

    def __init__(
        self,
        weight: float,
        distance: Distance,
        mask: Literal["none", "agree", "asked"] = "none",
        over: Literal["all", "masked"] = "all",
        detach_teacher: bool = False,
        weigh: Weighing | None = None,
    ):
        super().__init__(weight)
        self.distance = distance
        self.mask = mask
        self.over = over
        self.detach_teacher = detach_teacher
        self.weigh = weigh

    def __call__(self, view: View) -> Tensor:
        """≤ 0 for distances ≥ 0; 0 where the mask leaves nothing."""
        teacher = view.teacher_logits.detach() if self.detach_teacher else view.teacher_logits
        distances = self.distance(view.student_logits, teacher)
        if self.weigh is not None:
            distances = self.weigh(view) * distances
        if self.mask == "none":
            return -distances.mean()
        named = hard(view.targets) if self.mask == "asked" else view.student_logits.argmax(dim=1)
        counted = (named == view.predicted).to(distances.dtype)
        count = counted.sum().clamp_min(1) if self.over == "masked" else len(counted)
        return -(distances * counted).sum() / count


def hard(labels: Tensor) -> Tensor:
    """Hard labels (n,) from labels (n,) or probabilities (n, K)."""
    return labels if labels.dim() == 1 else labels.argmax(dim=1)


class SquaredGap(Term):
    """Minus the mean squared difference M of raw logits, or minus its logarithm; no gradient through the teacher.

    Source: CPSC (Shao et al., Pattern Recognition 2023), beside `Adversarial`.

    Args:
        weight: factor in the sum.
        logarithm: take -log M, whose gradient is larger the more the two agree; M is at least 1e-12.
    """

    name = "squared"
    competitive = True

    def __init__(self, weight: float, logarithm: bool = False):
        super().__init__(weight)
        self.logarithm = logarithm

    def __call__(self, view: View) -> Tensor:
        """≤ 0; the logarithm may have any sign."""
        gap = F.mse_loss(view.student_logits, view.teacher_logits.detach())
        return -(gap.clamp_min(1e-12).log() if self.logarithm else gap)


class Disagreement(Term):
    """1 - JS(student, teacher) at a temperature: the generator looks for what the student gets wrong.

    Source: PRE-DFKD, 2022, after DeepInversion's competition term.

    Args:
        weight: factor in the sum.
        reference: use the released `lra.distances.js_reference` instead of the true divergence.
        temperature: τ, 3 in every release.
        detach_teacher: no gradient through the teacher; otherwise it flows through both networks.
    """

    name = "disagreement"
    competitive = True

    def __init__(self, weight: float, reference: bool = False, temperature: float = 3.0, detach_teacher: bool = True):
        super().__init__(weight)
        self.distance: Distance = js_reference if reference else js
        self.temperature = temperature
        self.detach_teacher = detach_teacher

    def __call__(self, view: View) -> Tensor:
        """1 - JS, in [1 - ln 2, 1]."""
        teacher = view.teacher_logits.detach() if self.detach_teacher else view.teacher_logits
        divergence = self.distance(view.student_logits, teacher, self.temperature).mean()
        return 1 - divergence.clamp(0, 1)


class ZerothOrder(Term):
    """`Adversarial` with a gradient by forward differences (DFME, Truong et al., CVPR 2021).

    For ℓ_i(x) = -D_i(S(x), T(x)), unit directions u_j and d = C·H·W,

        ∇̂ℓ_i = mean_j d·(ℓ_i(x_i + εu_j) - ℓ_i(x_i))/ε · u_j

    reaches the generator as the gradient of mean_i ℓ_i. No graph ever runs through teacher or student.

    For some batch sizes the release loses points of the last chunk; here a batch is split exactly.

    Args:
        weight: factor in the sum.
        distance: D, per sample.
        directions: m random directions for each image.
        step: ε, of images in [0, 1].
        reduction: ``"mean"`` over the batch, or ``"sum"``, which is what the release does under KL: a gradient
            n times as large.
        squash: evaluate tanh(x) in place of x, as the release does although its generator ends in a sigmoid.
        chunk: images per forward pass.
    """

    name = "adversarial"

    def __init__(
        self,
        weight: float,
        distance: Distance,
        directions: int = 1,
        step: float = 1e-3,
        reduction: Literal["mean", "sum"] = "mean",
        squash: bool = False,
        chunk: int = 4992,
    ):
        super().__init__(weight)
        self.distance = distance
        self.directions = directions
        self.step = step
        self.reduction = reduction
        self.squash = squash
        self.chunk = chunk

    def __call__(self, view: View) -> Tensor:
        """≤ 0: the mean loss; its gradient with respect to the images is the estimate."""
        images = view.images.detach()
        gradient, value = self.estimate(images, view)
        surrogate = (view.images * gradient).sum()
        if self.reduction == "mean":
            surrogate = surrogate / len(images)
        return value.mean() + surrogate - surrogate.detach()

    @torch.no_grad()
    def estimate(self, images: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """The estimated gradient (n, C, H, W) for each image, and its loss (n,)."""
        n, m = len(images), self.directions
        directions = F.normalize(normal(m, n, images[0].numel(), device=images.device), dim=2).to(images.dtype)
        directions = directions.view(m, *images.shape)
        points = torch.cat([images, (images + self.step * directions).flatten(0, 1)])
        losses = torch.cat([self._losses(part, view) for part in points.split(self.chunk)])
        base, moved = losses[:n], losses[n:].view(m, n, 1, 1, 1)
        slope = (moved - base.view(1, n, 1, 1, 1)) * (images[0].numel() / self.step)
        return (slope * directions).mean(dim=0), base

    def _losses(self, points: Tensor, view: View) -> Tensor:
        there = view.elsewhere(points.tanh() if self.squash else points)
        return -self.distance(there.student_logits, there.teacher_logits)
