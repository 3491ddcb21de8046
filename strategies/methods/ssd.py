"""SSD: a small pool of images from rare and hard classes, replayed more often the less the student has learnt them.

After Liu et al., "Small Scale Data-Free Knowledge Distillation" (SSD-KD), CVPR 2024, https://arxiv.org/abs/2406.07876.
Neither its code nor its formulas are public. From the abstract, the overview figure and notes on the paper come: images
weighted by the rarity of their class and by the teacher's uncertainty; a buffer of a tenth of the original data, part
of which is renewed; draws from it by priority, as in reinforcement learning. All formulas are ours.

For every experience, with teacher T, student S, a persistent generator G, a = shift and flip:

    n_k = images in the pool that T assigns to class k, of N;  w_k = (N + K) / (K·(n_k + 1)), in [1/10, 10]
    z ~ N(0, I),  y uniform,  G' = copy of G
    10 times, x = a(G'(z)), k, p = T's predicted class and its probability:  φ = w_k·(1 - p)^γ, over its batch mean
        G', z <- Adam on  bn·R_bn(T; x, with momentum) + one_hot·mean φ·CE(T(x), y)
                          + adversarial·mean φ·(-KL_1(S ‖ T), where S and T agree)
    G <- Adam on the summed gradients of G'
    the best x with the greatest φ enter the pool, those with the least φ leave it: a quarter of a batch at most
    400 times:  images from the pool by P_i ∝ δ_i^0.6, δ_i their KL_1 when S last saw them;
                S <- SGD on mean w_i·D, w_i = (N·P_i)^-β over the largest, β from 0.4 to 1

The images are made by Fast's generator (ours: the paper compares itself with Fast); ``modulated: false`` weights all
images equally in synthesis. The pool is ``--replay pool`` with ``policy: useful`` and ``priority: 0.6``, which other
methods can use too. With another replay n_k counts what that one stores; where it stores no images, all classes are
weighted equally.
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
    """Weight images of rare classes, and those the teacher finds hard, more in synthesis."""
    focus: NonNegative = 2.0
    """γ in (1 - p)^γ, where p is the teacher's largest probability; 0 weights by class alone."""


class SSD(OptimisedMethod):
    """A persistent generator trained to fill the gaps in a small pool."""

    name = "ssd"
    paper = "after Liu et al., CVPR 2024"
    Options = SSDOptions
    defaults = {**published(lr=0.2), "replay": {"pool": {"policy": "useful", "capacity": 5000, "priority": 0.6}}}

    def build(self, student: nn.Module) -> Parts:
        """G, z and their three terms, two of them modulated; the plugin that counts the pool's classes for these."""
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
