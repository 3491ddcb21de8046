"""RGAL: synthesis and student disagree about which samples belong together.

Liang and Fu, "Data-free knowledge distillation with relation-guided adversarial learning", IJCV 2024.

For every experience, with teacher T, student S, a generator G drawn anew, a = shift and flip:

    z ~ N(0, I),  y uniform
    400 times, x = G(z):  G, z <- Adam on  bn·R_bn(T; a(x)) + one_hot·CE(T(a(x)), y)
                                           + adversarial·(-KL_1(S ‖ T), where S and T agree)
                                           + triplet·L_tri(maps of S; swapped: one class apart, others near)
    the best x enters the pool
    400 times, two views of each image from the pool:
          S, A <- SGD on D(S, T) + student_triplet·L_tri(f_S; not swapped)
                         + channels·Σ_l MSE(GAP(A_l S_l), GAP(T_l)) + gram·(masked difference of maps)

Negatives are drawn by distance: by T's logits in a narrow "focal" window in synthesis, by S's in a wide one for the
student. On confident logits the focal window is mostly empty and negatives are drawn uniformly instead; how often is
recorded as ``triplet_fallback``.

The release never swaps (``triplet_swap: false``). It can mix the student's images (``fmix``, the α of FMix) and drop
the student's extra terms after a share of the epochs (``active``). Gram needs maps of equal sizes in both networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lra.options import AdversarialOptions, Compared, Count, Fraction, NonNegative, Positive
from lra.strategies.method import BatchNormOptions, GeneratorOptions, OptimisedMethod, Parts, published

if TYPE_CHECKING:
    from torch import nn

    from lra.distillation.objective import StudentTerm


class RGALOptions(AdversarialOptions, BatchNormOptions, GeneratorOptions):
    """Defaults are those of the release's README, for WRN-40-2 and WRN-16-1 on CIFAR-10."""

    steps: Count = 400
    lr: Positive = 1e-3
    bn: NonNegative = 1.0
    one_hot: NonNegative = 1.0
    adversarial: NonNegative = 1.0
    triplet: NonNegative = 0.1
    views: Annotated[int, Field(ge=1, le=2)] = 2
    """Views of each image in a student step; the batch size counts views."""
    student_triplet: NonNegative = 0.1
    """Weight of the triplet term in the student's loss."""
    compared: Compared = "global"
    """What the triplets compare."""
    channels: NonNegative = 0.1
    """Weight of the difference of channel means."""
    gram: NonNegative = 0.0
    """Weight of the masked difference of maps."""
    active: Fraction = 1.0
    """Share of the epochs in which triplets, channels and gram count for the student."""
    fmix: NonNegative = 0.0
    """α of FMix on the student's images (released: 1, if on); 0 for none."""


class RGAL(OptimisedMethod):
    """CMI's generator with triplets in place of the contrast, and triplets for the student."""

    name = "rgal"
    paper = "Liang and Fu, IJCV 2024"
    Options = RGALOptions
    defaults = published()

    def build(self, student: nn.Module) -> Parts:
        """D, triplets and channels for the student, with the clock that ends them; G, z and their terms."""
        from lra.distillation.objective import Objective
        from lra.distillation.terms import Channels, Gram, StudentTriplet, adapters_between
        from lra.relations import TripletSampler
        from lra.strategies.plugins import EpochClock
        from lra.synthesis.augmentation import fmixed
        from lra.synthesis.sources import LatentSource
        from lra.synthesis.terms import BNStat, OneHot

        o, image, teacher = self.options, self.setup.problem.image, self.setup.teacher
        extras: list[StudentTerm] = [StudentTriplet(o.student_triplet, TripletSampler(), o.compared, o.triplet_margin)]
        if o.channels > 0 or o.gram > 0:
            adapters = adapters_between(student, teacher.network, image)
            extras += [Channels(o.channels, adapters), Gram(o.gram, adapters)]
        weights, last = [term.weight for term in extras], o.active * self.setup.epochs

        def weigh(completed: int) -> None:
            for term, weight in zip(extras, weights, strict=True):
                term.weight = weight if completed < last else 0.0

        shift = o.crop_and_flip()
        show = (lambda images: fmixed(shift(images), o.fmix)) if o.fmix else shift
        terms = [BNStat(o.bn), OneHot(o.one_hot), self.masked_adversary(o.adversarial)]
        synthesizer = self.batches(LatentSource(self.generator(), o.lr), terms, views=o.views, show=show)
        objective = Objective(self.setup.distance, extras, teacher)
        return self.parts(synthesizer, objective, [EpochClock(weigh, self.setup.experiences_per_epoch)])
