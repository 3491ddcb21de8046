"""CuDFKD: a curriculum, from samples the student finds easy to ones it disputes.

Li et al., "Dynamic Data-Free Knowledge Distillation by Easy-to-Hard Learning Strategy", Information Sciences 2023,
https://arxiv.org/abs/2208.13648; with the settings of the authors' benchmark.

For every experience, with teacher T, student S, generator G, at student step t and epoch e:

    z ~ N(0, I),  x = G(z)
    G <- Adam on  one_hot·CE(T(x), argmax T(x)) + bn·R_bn(x) + balance·(-H(mean softmax T(x)/τ))
                  - a(e)·KL_3(S(x), T(x))
    10 times:  x = G(z) for fresh z,  ℓ_i = D(S(x_i), T(x_i)),  v_i = (1 + e^-λ)/(1 + e^(ℓ_i - λ)),
               S <- SGD on mean v_i·ℓ_i,   λ = λ0 + rate·t

a(e) is 0 for a quarter of the epochs and then grows by a half each until three quarters. Weights v may also be hard
or soft (``weights``). The release weighs a batch by one number (``granularity: batch``), and calls a clamped,
reversed divergence js (``adversary: js_reversed``). Its scripts distil by L1 whatever temperature they name; D is
``student.loss`` here, by default the KL at 20 that they name. The pool of all images it can keep in memory is
``--replay``. The regulariser of v is computed and thrown away there, and left out here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.options import NonNegative
from lra.strategies.curriculum import CurriculumMethod, CurriculumOptions, started_small

if TYPE_CHECKING:
    from torch import nn

    from lra.distillation.curriculum import SelfPaced
    from lra.synthesis.online import OnlineGenerator


class CuDFKDOptions(CurriculumOptions):
    """As for CIFAR-10, ResNet-34 to ResNet-18."""

    adversarial_slope: NonNegative = 0.5


class CuDFKD(CurriculumMethod):
    """An online generator that gets adversarial by and by, and a student that learns the easy samples first."""

    name = "cudfkd"
    paper = "Li et al., Information Sciences 2023"
    Options = CuDFKDOptions
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "loss": {"kind": "kl", "temperature": 20.0}},
        "schedule": {"batch_size": 512, "steps_per_experience": 10, "experiences_per_epoch": 40, "epochs": 250},
    }

    def objective(self, student: nn.Module) -> SelfPaced:
        """D, self-paced."""
        return self.curriculum()

    def synthesizer(self) -> OnlineGenerator:
        """G and its terms."""
        return self.online(self.common_terms(), started_small)
