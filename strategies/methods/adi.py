"""ADI: DeepInversion, pixels optimised until the teacher takes them for its own data.

Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", CVPR 2020,
https://arxiv.org/abs/1912.08795; settings of CMI's benchmark (Fang et al., IJCAI 2021).

For every experience, with teacher T, student S, a = one roll and flip for the whole batch:

    x ~ noise,  y uniform
    1000 times:  x <- Adam, clipped to [0, 1], on  bn·R_bn(T; a(x)) + one_hot·CE(T(a(x)), y)
                                                   - adversarial·JS_3(S(a(x)), T(a(x))) + tv·TV(x) + l2·‖x‖
    x enters the pool;  400 times:  S <- SGD on D(S, T) of images from the pool (``--replay pool``)

``adversarial: 0`` is plain DeepInversion; 1 adds the paper's competition. The paper's ImageNet recipe, with a sequence
of resolutions and a weight for each layer, is left out.

The releases differ in two ways: their "JS divergence" is clamped and its KL terms are reversed (``divergence:
reference``), and the images they return as the best are those of the last iterate (``keep: last``). The weight of TV
is for pixels in [0, 1] here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from lra.options import AdversarialOptions, Count, NonNegative, Positive
from lra.strategies.method import BatchNormOptions, OptimisedMethod, OptimisedOptions, Parts, published

if TYPE_CHECKING:
    from torch import Tensor, nn


class ADIOptions(AdversarialOptions, BatchNormOptions, OptimisedOptions):
    """Defaults are those of CMI's benchmark."""

    steps: Count = 1000
    lr: Positive = 0.1
    bn: NonNegative = 10.0
    one_hot: NonNegative = 1.0
    adversarial: NonNegative = 1.0
    tv: NonNegative = 1e-3
    """Weight of the total variation."""
    l2: NonNegative = 0.0
    """Weight of the images' Euclidean norm."""
    divergence: Literal["exact", "reference"] = "exact"
    """The divergence as defined, or as the release computes it."""


class ADI(OptimisedMethod):
    """Pixels that look like the training data to the teacher's BatchNorm layers."""

    name = "adi"
    paper = "Yin et al., CVPR 2020"
    Options = ADIOptions
    defaults = published()

    def build(self, student: nn.Module) -> Parts:
        """Pixels and their five terms."""
        from lra.distances import js, js_reference
        from lra.synthesis.sources import Pixels
        from lra.synthesis.terms import L2, Adversarial, BNStat, OneHot, TotalVariation

        o = self.options

        def released(student: Tensor, teacher: Tensor) -> Tensor:
            return js_reference(student, teacher, 3.0) * student.shape[1]

        divergence = partial(js, temperature=3.0) if o.divergence == "exact" else released
        terms = [
            BNStat(o.bn),
            OneHot(o.one_hot),
            Adversarial(o.adversarial, divergence),
            TotalVariation(o.tv),
            L2(o.l2),
        ]
        return self.parts(self.batches(Pixels(self.setup.problem, o.lr), terms, augment=o.jitter()))
