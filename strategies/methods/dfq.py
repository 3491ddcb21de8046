"""DFQ: adversarial samples that look to the teacher's BatchNorm like its training data.

Choi et al., "Data-Free Network Quantization with Adversarial Knowledge Distillation", CVPR workshops 2020,
https://arxiv.org/abs/2005.04136; here in the form and with the settings of CMI's benchmark (Fang et al., IJCAI 2021).

For every experience, with teacher T, student S, generator G:

    z ~ N(0, I),  x = G(z)
    G <- Adam on  one_hot·CE(T(x), argmax T(x)) + bn·R_bn(x) + balance·(-H(mean softmax T(x)))
                  - adversarial·D(S(x), T(x))
    10 times:  x = G(z) for fresh z,  S <- SGD on D(S(x), T(x))

R_bn = Σ over T's BatchNorm layers of ‖v - V‖₂ + ‖m - M‖₂. D is ``student.loss`` in both places. The paper's Gaussian
KL in place of R_bn is ``bn_gap: kl``; its use of several generators, and quantisation itself, are left out.
Fast-Datafree's copy of this baseline attacks the teacher instead of the student, so that its adversarial term is zero;
ours does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lra.options import AdversarialOptions, BalanceOptions, NonNegative
from lra.strategies.method import BatchNormOptions, OnlineMethod, OnlineOptions, Parts

if TYPE_CHECKING:
    from torch import nn


class DFQOptions(BalanceOptions, AdversarialOptions, BatchNormOptions, OnlineOptions):
    """Defaults are those of CMI's benchmark."""

    one_hot: NonNegative = 1.0
    bn: NonNegative = 1.0
    bn_gap: Literal["l2", "mse", "kl"] = "l2"
    """How the distance to the teacher's BatchNorm statistics is measured."""
    balance: NonNegative = 20.0
    adversarial: NonNegative = 1.0


class DFQ(OnlineMethod):
    """An online generator trained for confident, balanced, adversarial samples that match BatchNorm statistics."""

    name = "dfq"
    paper = "Choi et al., CVPRW 2020"
    Options = DFQOptions
    latent = 256
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "loss": {"kind": "kl"}},
        "schedule": {"batch_size": 256, "steps_per_experience": 10, "experiences_per_epoch": 40, "epochs": 200},
    }

    def build(self, student: nn.Module) -> Parts:
        """G and its four terms."""
        from lra.synthesis.terms import Adversarial, Balance, BNStat, OneHot

        o = self.options
        terms = [
            OneHot(o.one_hot),
            BNStat(o.bn, gap=o.bn_gap),
            Balance(o.balance),
            Adversarial(o.adversarial, self.setup.distance),
        ]
        return self.parts(self.online(terms))
