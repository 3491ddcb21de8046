"""TA-DFKD: the generator owes nothing to the teacher's classes; samples are sorted out by it afterwards.

Shin et al., "Teacher as a Lenient Expert: Teacher-Agnostic Data-Free Knowledge Distillation", AAAI 2024; weights and
schedule as in the authors' code, https://github.com/bigdata-inha/TA-DFKD-Official.

For every experience, with teacher T, student S, generator G in train mode, a = one shift and flip of a whole batch:

    z ~ N(0, I),  x = G(z),  keep = Filter(T(x))
    G <- Adam on  bn·R_bn(T; a(x)[keep]) + l2·‖a(x)‖₂ + tv·Σ_→↓↘↗ ‖a(x) - moved a(x)‖₂
                  + disagreement·[1 - JS_3(S(a(x)[keep]), T(a(x)[keep]))]
    10 times:  while too few:  x = G(z) for fresh z,  take a(x)[Filter(T(x))];   S <- SGD on mean |S - T|

Filter keeps x_i if the lower of two Gaussians that are fitted to the batch's ℓ_i = -log max softmax T(x_i), scaled to
[0, 1], has it: see `lra.synthesis.confidence`. ‖·‖₂ is of all images together, standardised as for T. Why no class is
asked for: what pleases one teacher's class prior harms with another.

The release puts the student's ten steps first, before an untrained G; here an experience opens with G's step. Where the
filter keeps nothing the release draws on for ever, and where all losses are equal it fails; here (ours) it draws
``redraws`` times more at most and takes the surest of the rest, and keeps all. The release's divergence is clamped and
runs the wrong way (``js: reference``), with a gradient through T too (``through_teacher``); its S answers with batch
statistics while G learns, which its running ones absorb (``student_mode: train``). One shift for a whole batch may be
an accident (``together``). Its BatchNorm has an eps of 0.8 where a momentum may have been meant (``bn_eps``, kept). The
share kept is recorded among the terms, as ``confident``.
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
    """The constant in the generator's BatchNorm."""
    bn: NonNegative = 10.0
    l2: NonNegative = 6e-3
    """Weight of the norm of all images of a batch, standardised."""
    tv: NonNegative = 1.5e-5
    """Weight of the norms of differences of neighbours, likewise."""
    disagreement: NonNegative = 1.0
    """Weight of the disagreement of student and teacher."""
    js: Literal["exact", "reference"] = "exact"
    """The divergence as defined, or as the release computes it."""
    through_teacher: bool = False
    """Let its gradient flow through the teacher too, as the release does."""
    student_mode: Literal["eval", "train"] = "eval"
    """Mode of the student while the generator learns."""
    together: bool = True
    """One shift and one decision to mirror for all images of a draw, as released; or each image its own."""
    redraws: Whole = 20
    """Batches drawn in addition, at most, until there are enough samples that the teacher is sure of; 0: no filter."""


class TADFKD(OnlineMethod):
    """An online generator that wants disputed samples with familiar statistics, of which the sure ones are taken."""

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
