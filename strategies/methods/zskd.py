"""ZSKD: soft labels sampled from the class similarities in the teacher's last layer, and pixels to match them.

Nayak et al., "Zero-Shot Knowledge Distillation in Deep Networks", ICML 2019, https://arxiv.org/abs/1905.08114.

For every experience, ten batches, with teacher T, C the cosine similarities of its last layer's rows, each in [0, 1]:

    c ~ uniform classes,  y ~ Dirichlet(C_c / scale),  x ~ noise
    150 times:  x <- Adam, clipped to [0, 1], on  τ²·KL(y ‖ softmax(T(a(x)) / τ)),   a = one roll and flip for the batch
    x enters the pool;  400 times:  S <- SGD on D(S, T) of images from the pool (``--replay pool``)

The paper makes all images in advance, half of them at scale 1, half at 0.1; here they are made experience by
experience, at one scale. The release takes the classes one batch after another, each starting from the pixels of the
one before (``restart: false``; its batches of a single class are left out, since pixels of different images do not
interact), returns the last iterate as the best (``keep: last``), and stores images that were never brought back from
normalised space. Synthesis does not involve the student.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.options import Count, Positive
from lra.strategies.method import OptimisedMethod, OptimisedOptions, Parts, published

if TYPE_CHECKING:
    from torch import nn


class ZSKDOptions(OptimisedOptions):
    """Defaults are those of AdaDFKD's benchmark, whose 1500 steps are shared by ten classes."""

    steps: Count = 150
    rounds: Count = 10
    lr: Positive = 3.0
    soft_label: Positive = 1.0
    """Weight of the divergence from the target soft label."""
    temperature: Positive = 20.0
    """Temperature τ."""
    scale: Positive = 0.1
    """Scale of the Dirichlet distribution of soft labels: larger is closer to one-hot."""
    restart: bool = True
    """Start every batch from fresh pixels."""


class ZSKD(OptimisedMethod):
    """Pixels optimised to match soft labels drawn from class similarities."""

    name = "zskd"
    paper = "Nayak et al., ICML 2019"
    Options = ZSKDOptions
    defaults = published()

    def build(self, student: nn.Module) -> Parts:
        """Pixels and their one term."""
        from lra.synthesis import labels
        from lra.synthesis.sources import Pixels
        from lra.synthesis.terms import SoftLabelKL

        o, problem = self.options, self.setup.problem
        plan = labels.dirichlet(labels.class_similarity(self.setup.teacher, problem.image), o.scale)
        source = Pixels(problem, o.lr, betas=(0.9, 0.999), restart=o.restart)
        return self.parts(self.batches(source, [SoftLabelKL(o.soft_label, o.temperature)], plan, o.jitter()))
