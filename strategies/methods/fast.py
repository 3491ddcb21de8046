"""Fast: a few steps per batch, from a generator that learns where to start.

Fang et al., "Up to 100x Faster Data-free Knowledge Distillation", AAAI 2022, https://arxiv.org/abs/2112.06253.

For every experience, with teacher T, student S, a persistent generator G, a = shift and flip:

    z ~ N(0, I),  y uniform,  G' = copy of G
    10 times, x = G'(z):  G', z <- Adam on  bn·R_bn(T; a(x), with momentum) + one_hot·CE(T(a(x)), y)
                                            + adversarial·(-KL_1(S ‖ T), where S and T agree)
    G <- Adam on the summed gradients of G' ("fomaml"), or on 67·(G - G') ("reptile")
    the best x enters the pool;  400 times:  S <- SGD on D of images from the pool (``--replay pool``)

Before the student's first step come 20 batches without the adversarial term. At batch 140 G's first layer is
re-initialised; the release also draws that layer's BatchNorm scales around 0 (``renew_scale: 0``). Published variants:
10 steps at lr 0.002 and latent_lr 0.01, 5 at 0.003 and 0.01, 2 at 0.005 and 0.015; ``meta: none`` optimises G itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lra.options import NonNegative, Whole
from lra.strategies.method import MetaGeneratorOptions, OptimisedMethod, Parts, published

if TYPE_CHECKING:
    from torch import nn


class FastOptions(MetaGeneratorOptions):
    """Fast-10, as in the paper's scripts for ResNet-34 and ResNet-18."""

    meta: Literal["fomaml", "reptile", "none"] = "fomaml"
    """How the generator learns from what its copy learnt; none optimises the generator directly."""
    renew_first_at: Whole = 140
    """The batch, counted from 1, at which the first layer is re-initialised; 0 for never."""
    renew_scale: NonNegative = 1.0
    """Mean of the BatchNorm scales drawn for a re-initialised first layer; 0 as released."""


class Fast(OptimisedMethod):
    """A persistent generator that learns to be a good initialisation for every batch."""

    name = "fast"
    paper = "Fang et al., AAAI 2022"
    Options = FastOptions
    defaults = published(lr=0.2)

    def build(self, student: nn.Module) -> Parts:
        """G, z and their three terms."""
        from lra.synthesis import labels
        from lra.synthesis.sources import MetaSource
        from lra.synthesis.terms import BNStat, OneHot

        o = self.options
        source = MetaSource(self.generator(), o.lr, o.latent_lr, o.steps, o.meta, o.renew_first_at, o.renew_scale)
        terms = [BNStat(o.bn, o.bn_momentum), OneHot(o.one_hot), self.masked_adversary(o.adversarial)]
        return self.parts(self.batches(source, terms, labels.uniform(self.setup.problem.classes)))
