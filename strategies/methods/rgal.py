"""RGAL: synthesis and student work against each other over which samples belong together.

Liang and Fu, "Data-free knowledge distillation with relation-guided adversarial learning", IJCV 2024.

For every experience, with teacher T, student S, a newly initialised generator G, a = shift and flip:

    z ~ N(0, I),  y uniform
    400 times, x = G(z):  G, z <- Adam on  bn·R_bn(T; a(x)) + one_hot·CE(T(a(x)), y)
                                           + adversarial·(-KL_1(S ‖ T), where S and T agree)
                                           + triplet·L_tri(maps of S; swapped: one class apart, others near)
    the best x enters the pool
    400 times, two views of each image from the pool:
          S, A <- SGD on D(S, T) + student_triplet·L_tri(f_S; not swapped)
                         + channels·Σ_l MSE(GAP(A_l S_l), GAP(T_l)) + gram·(masked difference of maps)

Negatives are drawn by distance: in synthesis from a narrow "focal" window of distances between T's logits, for the
student from a wide window of distances between S's. On confident logits the focal window is mostly empty, and negatives
are drawn uniformly instead; how often that happens is recorded as ``triplet_fallback``.

The release never swaps (``triplet_swap: false``). It can mix the student's images (``fmix``, the α of FMix) and drop
the student's extra terms after a fraction of the epochs (``active``). ``gram`` needs maps of equal sizes in both
networks.
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
    """What the student's triplets compare."""
    channels: NonNegative = 0.1
    """Weight of the difference between channel means."""
    gram: NonNegative = 0.0
    """Weight of the masked difference between feature maps."""
    active: Fraction = 1.0
    """Fraction of the epochs, from the start, in which the student's triplet, channel and gram terms apply."""
    fmix: NonNegative = 0.0
    """α of FMix on the student's images (released: 1, where it is on); 0 for no mixing."""


class RGAL(OptimisedMethod):
    """CMI's generator with a triplet loss in place of the contrastive one, and a triplet loss for the student."""

    name = "rgal"
    paper = "Liang and Fu, IJCV 2024"
    Options = RGALOptions
    defaults = published()

    def build(self, student: nn.Module) -> Parts:
        """D, triplets and channels for the student, with the schedule that ends them; G, z and their terms."""
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
