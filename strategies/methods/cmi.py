"""CMI: batches that differ from one another and from all earlier ones.

Fang et al., "Contrastive Model Inversion for Data-Free Knowledge Distillation", IJCAI 2021,
https://arxiv.org/abs/2105.08584.

For every experience, with teacher T, student S, a newly initialised generator G, global views g (shift, flip), local
views l (enlarged crops), and h(.) the inputs of T's BatchNorm layers, averaged over pixels:

    z ~ N(0, I),  y uniform
    200 times, x = G(z):  G, z <- Adam on  bn·R_bn(T; g) + one_hot·CE(T(g), y)
                                           + adversarial·(-KL_1(S(g) ‖ T(g)), where S and T agree)
                                           + cross_view·NCE(head h(l), head h(g), bank)
                          head <- Adam on the same
    the best x enters the pool, its [h(l) | h(g)] the bank;  400 times:  S <- SGD on D of images from the pool

The paper also starts from a pool of 50 000 images made in advance, without the student (``warmup``: 196 batches of
256; presets cmi-adversarial/...); ``adversarial: 0`` with a single experience of that size is its non-adversarial
form. For large ResNets it describes images by the inputs of four stages; ``layers: stages`` here takes the outputs of
all stages. The released bank fails at the moment it is exactly full; ours does not. ``rounding: down`` truncates pixel
values, as released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lra.options import AdversarialOptions, Count, Layers, NonNegative, Positive
from lra.strategies.method import BatchNormOptions, GeneratorOptions, OptimisedMethod, Parts, published

if TYPE_CHECKING:
    from torch import nn


class CMIOptions(AdversarialOptions, BatchNormOptions, GeneratorOptions):
    """Defaults are those of the paper's scripts for CIFAR-10, from scratch."""

    steps: Count = 200
    lr: Positive = 1e-3
    bn: NonNegative = 1.0
    one_hot: NonNegative = 1.0
    adversarial: NonNegative = 0.5
    cross_view: NonNegative = 0.8
    """Weight of the contrastive loss, between views and against the bank."""
    temperature: Positive = 0.1
    """Temperature of the contrastive loss."""
    bank: Count = 40960
    """Capacity of the bank: descriptions of past images."""
    negatives: Count = 4096
    """Descriptions from the bank that each batch is contrasted with."""
    layers: Layers = "batchnorm"
    """What describes an image: the inputs of the teacher's BatchNorm layers, or the outputs of its stages."""
    without_batchnorm: ClassVar[str] = "synthesis.bn=0 and synthesis.layers=stages"

    @property
    def needs_batchnorm(self) -> bool:
        """Whether R_bn or the description of images needs it."""
        return super().needs_batchnorm or (self.cross_view > 0 and self.layers == "batchnorm")


class CMI(OptimisedMethod):
    """A generator re-initialised for each batch, and a bank of features of earlier images."""

    name = "cmi"
    paper = "Fang et al., IJCAI 2021"
    Options = CMIOptions
    defaults = published(batch_size=128)

    def build(self, student: nn.Module) -> Parts:
        """G, z and their four terms."""
        from lra.synthesis.sources import LatentSource
        from lra.synthesis.terms import BNStat, CrossView, FeatureBank, OneHot, projection_head

        o = self.options
        if o.images > o.bank:
            raise ValueError(f"a batch of {o.images} images does not fit a bank of {o.bank}: raise synthesis.bank")
        terms = [BNStat(o.bn), OneHot(o.one_hot), self.masked_adversary(o.adversarial)]
        if o.cross_view:
            head = projection_head(self.setup.teacher, self.setup.problem.image, o.layers)
            bank, local = FeatureBank(o.bank), o.local_view()
            terms.append(CrossView(o.cross_view, head, bank, local, o.lr, o.temperature, o.negatives, o.layers))
        return self.parts(self.batches(LatentSource(self.generator(), o.lr), terms))
