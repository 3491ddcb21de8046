"""GDFQ: a class-conditional generator, designed for low-bit students.

Xu et al., "Generative Low-bitwidth Data Free Quantization", ECCV 2020, https://arxiv.org/abs/2003.03603.

For every experience, with teacher T, student S (a quantised copy of T, see `lra.quantization`), generator G:

    z ~ N(0, I),  y uniform,  x = G(z ⊙ embedding(y))
    G <- Adam on  one_hot·CE(T(x), y) + bn·mean_l[MSE(m_l, M_l) + MSE(v_l, V_l)]
                  + triplet·L_tri(maps of S; swapped)                                              (RGAL's, off)
    fresh x,  S <- SGD on D(S, T)/K + classes·CE(S(x), argmax T(x)) + student_triplet·L_tri(f_S)   (RGAL's, off)

Before that, G is trained alone for ``warmup`` experiences. m and v are the batch's statistics at T's BatchNorm layers,
M and V the running ones; D is the KL at temperature 20, averaged over classes. The method also distils full-precision
students.

Departures: S learns the class that T predicts where the paper takes y, the class G was given (equal where G succeeds);
plain momentum in place of Nesterov's. RGAL's code has no quantisation: with its terms, this is RGAL's losses inside
GDFQ, not the system of that paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.options import NonNegative, Whole
from lra.strategies.method import BatchNormOptions, OnlineMethod, OnlineOptions, Parts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lra.distillation.objective import StudentTerm
    from lra.images import Image


class GDFQOptions(BatchNormOptions, OnlineOptions):
    """Defaults are those published for CIFAR, without RGAL."""

    one_hot: NonNegative = 1.0
    bn: NonNegative = 0.1
    warmup: Whole = 800
    """Experiences' worth of generator steps before the first experience."""
    classes: NonNegative = 1.0
    """Weight of the student's cross-entropy."""
    student_triplet: NonNegative = 0.0
    """Weight of RGAL's term in the student's loss (RGAL: 0.1, together with ``triplet``)."""


class GDFQ(OnlineMethod):
    """A class-conditional generator that matches BatchNorm statistics, for a quantised student."""

    name = "gdfq"
    paper = "Xu et al., ECCV 2020"
    Options = GDFQOptions
    latent = 100
    defaults = {
        "student": {
            "lr": 1e-4,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "loss": {"kind": "kl", "temperature": 20.0},
        },
        "schedule": {"batch_size": 200, "steps_per_experience": 1, "experiences_per_epoch": 200, "epochs": 400},
    }
    retention = "none"  # Its student begins where it should end.
    for_copies = True

    def build(self, student: nn.Module) -> Parts:
        """G and its two terms; for the student D/K, the class, RGAL's triplets."""
        from lra.distillation.objective import Objective
        from lra.distillation.terms import HardLabel, StudentTriplet
        from lra.networks.conditional import ConditionedGenerator
        from lra.networks.generators import memory_generator
        from lra.relations import TripletSampler
        from lra.synthesis.online import ConditionedOnlineGenerator
        from lra.synthesis.terms import BNStat, OneHot

        o, problem, distance = self.options, self.setup.problem, self.setup.distance

        def per_class(student: Tensor, teacher: Tensor) -> Tensor:
            return distance(student, teacher) / problem.classes

        def conditioned(latent: int, image: Image, width: int) -> nn.Module:
            body = memory_generator(latent, image, mean=problem.mean, std=problem.std, width=width)
            return ConditionedGenerator(body, problem.classes)

        student_terms: list[StudentTerm] = [HardLabel(o.classes)]
        if o.student_triplet:
            student_terms.append(StudentTriplet(o.student_triplet, TripletSampler(), margin=o.triplet_margin))
        terms = [OneHot(o.one_hot), BNStat(o.bn, gap="mse", reduce="mean")]
        synthesizer = self.online(
            terms, conditioned, ConditionedOnlineGenerator, sampling_mode="train", warmup=o.warmup
        )
        return self.parts(synthesizer, Objective(per_class, student_terms))
