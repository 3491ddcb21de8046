"""SoftTarget: soft labels of features correlated like the teacher's last filters, and pixels to match them.

Wang, "Data-Free Knowledge Distillation with Soft Targeted Transfer Set Synthesis", AAAI 2021,
https://arxiv.org/abs/2104.04868.

For every experience, with teacher T, whose last layer is W, and R the cosines of its last convolution's filters:

    u ~ N(0, spread²·R),  y = softmax(W u / τ),  x ~ noise
    1000 times:  x <- Adam, clipped to [0, 1], on  τ²·KL(y ‖ softmax(T(a(x)) / τ)) - activation·mean |f_T(a(x))|
    x enters the pool;  400 times:  S <- SGD on D(S, T) of images from the pool (``--replay pool``)

The paper makes all images in advance. The benchmark's release optimises a copy that is never read, so that its images
are shuffled noise, and takes the divergence in the other direction; neither is offered here. Its temperature is 20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.options import ActivationOptions, Count, NonNegative, Positive
from lra.strategies.method import OptimisedMethod, OptimisedOptions, Parts, published

if TYPE_CHECKING:
    from torch import nn


class SoftTargetOptions(ActivationOptions, OptimisedOptions):
    """Defaults are those of AdaDFKD's benchmark for ResNet-34 and ResNet-18."""

    steps: Count = 1000
    lr: Positive = 0.1
    soft_label: Positive = 1.0
    """Weight of the divergence from the target soft label."""
    activation: NonNegative = 1.0
    temperature: Positive = 20.0
    """Temperature τ."""
    spread: Positive = 1.0
    """Standard deviation of the sampled features; 1 as published, more where the teacher's own are larger."""


class SoftTarget(OptimisedMethod):
    """Pixels optimised to match the soft labels of sampled features."""

    name = "softtarget"
    paper = "Wang, AAAI 2021"
    Options = SoftTargetOptions
    defaults = published(epochs=2000)

    def build(self, student: nn.Module) -> Parts:
        """Pixels and their two terms."""
        from lra.synthesis import labels
        from lra.synthesis.sources import Pixels
        from lra.synthesis.terms import Activation, SoftLabelKL

        o, problem = self.options, self.setup.problem
        terms = [SoftLabelKL(o.soft_label, o.temperature), Activation(o.activation)]
        plan = labels.gaussian(self.setup.teacher, problem.image, o.temperature, o.spread)
        return self.parts(self.batches(Pixels(problem, o.lr), terms, plan, o.jitter()))
