"""SSD: few images, of rare classes and hard ones, which are seen the more often the less the student knows of them.

After Liu et al., "Small Scale Data-Free Knowledge Distillation" (SSD-KD), CVPR 2024, https://arxiv.org/abs/2406.07876.
Neither code nor formulas of it are public. From the abstract, the overview figure and notes on the paper come: images
that are weighed by the rarity of their class and by the teacher's doubt; a buffer of a tenth of the original data, of
which a part is renewed; draws from it by priority, as in reinforcement learning. All formulas are ours.

For every experience, with teacher T, student S, generator G that lives on, a = shift and flip:

    n_k = images in the pool that T takes for class k, of N;  w_k = (N + K) / (K·(n_k + 1)), in [1/10, 10]
    z ~ N(0, I),  y uniform,  G' = copy of G
    10 times, x = a(G'(z)), k, p = class and probability that T is surest of:  φ = w_k·(1 - p)^γ, over its batch mean
        G', z <- Adam on  bn·R_bn(T; x, with momentum) + one_hot·mean φ·CE(T(x), y)
                          + adversarial·mean φ·(-KL_1(S ‖ T), where S and T agree)
    G <- Adam on the sum of G''s gradients
    the best x with the greatest φ enter the pool, those with the least φ leave it: a quarter of a batch at most
    400 times:  images from the pool by P_i ∝ δ_i^0.6, δ_i their KL_1 when S last saw them;
                S <- SGD on mean w_i·D, w_i = (N·P_i)^-β over the largest, β from 0.4 to 1

What makes images is Fast's generator (ours: the paper compares itself with Fast); ``modulated: false`` has all images
count alike in synthesis. The pool is that of ``--replay pool`` with ``policy: useful`` and ``priority: 0.6``, which
other methods can have too; with another replay n_k counts what that one stores, and all classes count alike where it
stores no images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.options import NonNegative
from lra.strategies.method import MetaGeneratorOptions, OptimisedMethod, Parts, published

if TYPE_CHECKING:
    from torch import nn


class SSDOptions(MetaGeneratorOptions):
    """Defaults are Fast's, for ResNet-34 and ResNet-18; its own are ours."""

    modulated: bool = True
    """Have images of rare classes that the teacher finds hard count more in synthesis."""
    focus: NonNegative = 2.0
    """γ of (1 - p)^γ, for the teacher's largest probability p; 0 looks at classes alone."""


class SSD(OptimisedMethod):
    """A generator that is to fill the gaps of a small pool."""

    name = "ssd"
    paper = "after Liu et al., CVPR 2024"
    Options = SSDOptions
    defaults = {**published(lr=0.2), "replay": {"pool": {"policy": "useful", "capacity": 5000, "priority": 0.6}}}

    def build(self, student: nn.Module) -> Parts:
        """G, z and their three terms, two of them modulated; what counts the pool's classes for these."""
        from lra.memory.usefulness import Modulation
        from lra.strategies.plugins import Census
        from lra.synthesis import labels
        from lra.synthesis.sources import MetaSource
        from lra.synthesis.terms import BNStat, OneHot

        o, problem = self.options, self.setup.problem
        modulation = Modulation(problem.classes, o.focus, problem.device) if o.modulated else None
        terms = [
            BNStat(o.bn, o.bn_momentum),
            OneHot(o.one_hot, weigh=modulation),
            self.masked_adversary(o.adversarial, weigh=modulation),
        ]
        source = MetaSource(self.generator(), o.lr, o.latent_lr, o.steps)
        synthesizer = self.batches(source, terms, labels.uniform(problem.classes))
        return self.parts(synthesizer, plugins=[] if modulation is None else [Census(modulation.count)])
