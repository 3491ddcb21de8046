"""TA-DFKD: the generator's loss ignores the teacher's classes; a filter then picks the samples the teacher is sure of.

Shin et al., "Teacher as a Lenient Expert: Teacher-Agnostic Data-Free Knowledge Distillation", AAAI 2024; weights and
schedule as in the authors' code, https://github.com/bigdata-inha/TA-DFKD-Official.

For every experience, with teacher T, student S, generator G in train mode, a = one shift and flip for a whole batch:

    z ~ N(0, I),  x = G(z),  keep = Filter(T(x))
    G <- Adam on  bn·R_bn(T; a(x)[keep]) + l2·‖a(x)‖₂ + tv·Σ_→↓↘↗ ‖a(x) - moved a(x)‖₂
                  + disagreement·[1 - JS_3(S(a(x)[keep]), T(a(x)[keep]))]
    10 times:  until a batch is full:  x = G(z) for fresh z,  take a(x)[Filter(T(x))];   S <- SGD on mean |S - T|

Two Gaussians are fitted to the batch's losses ℓ_i = -log max softmax T(x_i), scaled to [0, 1]; Filter keeps x_i if ℓ_i
belongs to the lower one: see `lra.synthesis.confidence`. ‖·‖₂ is over all images together, standardised as for T.
There is no class prior, because a prior that suits one teacher is harmful with another.

The release takes the student's ten steps first, while G is still untrained; here an experience opens with G's step.
Where the filter keeps nothing, the release draws for ever, and where all losses are equal it fails. Here (ours) it
draws at most ``redraws`` more times and then takes the most confident of the rest; where all losses are equal, it keeps
all. In the release the divergence is clamped and its KL terms are reversed (``js: reference``), with a gradient through
T too (``through_teacher``); S uses batch statistics while G learns, and its running ones absorb them (``student_mode:
train``). Its one shift for a whole batch may be an accident (``together``). Its BatchNorm has an eps of 0.8, where a
momentum may have been meant (``bn_eps``, kept). The fraction kept is recorded among the terms, as ``confident``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from lra.options import AugmentationOptions, Fraction, NonNegative, Positive, Whole
from lra.strategies.method import OnlineMethod, OnlineOptions, Parts, StatisticsOptions

if TYPE_CHECKING:
    from torch import nn


class TADFKDOptions(AugmentationOptions, StatisticsOptions, OnlineOptions):
    """Defaults are those of the released script for CIFAR."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    bn_eps: Positive = 0.8
    """ε of the generator's BatchNorm."""
    bn: NonNegative = 10.0
    l2: NonNegative = 6e-3
    """Weight of the norm of a whole batch of standardised images."""
    tv: NonNegative = 1.5e-5
    """Weight of the total variation: norms of the differences between neighbouring pixels, likewise."""
    disagreement: NonNegative = 1.0
    """Weight of the disagreement between student and teacher."""
    js: Literal["exact", "reference"] = "exact"
    """The divergence as defined, or as the release computes it."""
    through_teacher: bool = False
    """Let the divergence's gradient flow through the teacher too, as the release does."""
    student_mode: Literal["eval", "train"] = "eval"
    """Mode of the student while the generator learns."""
    together: bool = True
    """Shift and mirror all images of a draw together, as released, or each image independently."""
    redraws: Whole = 20
    """Most additional batches to draw until there are enough samples the teacher is confident in; 0: no filter."""


class TADFKD(OnlineMethod):
    """An online generator of adversarial samples that match BatchNorm statistics, filtered by teacher confidence."""

    name = "ta-dfkd"
    paper = "Shin et al., AAAI 2024"
    Options = TADFKDOptions
    latent = 1000
    defaults = {
        "student": {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "loss": {"kind": "l1"}},
        "schedule": {"batch_size": 1024, "steps_per_experience": 10, "experiences_per_epoch": 36, "epochs": 200},
    }

    def build(self, student: nn.Module) -> Parts:
        """G and its four terms; the filter is every online generator's."""
        from lra.images import standardisation
        from lra.networks.generators import gen_tadfkd
        from lra.synthesis.terms import L2, BNStat, Disagreement, TotalVariation

        o, problem = self.options, self.setup.problem
        standardise = standardisation(problem.mean, problem.std, problem.device)
        terms = [
            BNStat(o.bn),
            L2(o.l2, standardise),
            TotalVariation(o.tv, "norm", standardise),
            Disagreement(o.disagreement, reference=o.js == "reference", detach_teacher=not o.through_teacher),
        ]
        show = o.crop_and_flip_together() if o.together else o.crop_and_flip()
        modes = {"student_mode": o.student_mode, "sampling_mode": "train"}
        return self.parts(self.online(terms, partial(gen_tadfkd, bn_eps=o.bn_eps), show=show, **modes))
