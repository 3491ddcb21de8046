"""PRE-DFKD's generator, which MB-DFKD and LRA share.

Binici et al., "Robust and Resource-Efficient Data-Free Knowledge Distillation by Generative Pseudo Replay", AAAI
2022, https://arxiv.org/abs/2201.03019; Patel et al., "Learning to Retain while Acquiring", CVPR 2023.

For every experience, with teacher T, student S, generator G:

    z ~ N(0, I),  x = G(z)
    G <- Adam on  CE(T(x), argmax T(x)) + balance·(-H(mean softmax T(x))) + activation·(-mean |f_T(x)|)
                  + [1 - JS_3(S(x), T(x))]
    then several student steps, each on a fresh batch G(z)

With ``--replay none`` this is the finetuning control, with ``memory`` MB-DFKD, with ``generative`` PRE-DFKD, and
with ``--meta`` LRA.

In the release the divergence is clamped and its KL terms are reversed (``js: reference``), the student uses batch
statistics while the generator learns (``student_mode: train``), and the generator's BatchNorm has an eps of 0.8, where
a momentum may have been meant (``bn_eps``, kept). It weights the entropy by 5 in log10, which is 5 / ln 10 in nats.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from lra.options import ActivationOptions, BalanceOptions, Count, Fraction, NonNegative, OneHotOptions, Positive
from lra.strategies.method import OnlineMethod, OnlineOptions, Parts

if TYPE_CHECKING:
    from torch import nn


class PreDFKDOptions(OneHotOptions, BalanceOptions, ActivationOptions, OnlineOptions):
    """Defaults are those published for CIFAR."""

    lr: Positive = 0.02
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    bn_eps: Positive = 0.8
    """ε of the generator's BatchNorm."""
    one_hot: NonNegative = 1.0
    balance: NonNegative = 2.171472409516259
    activation: NonNegative = 0.1
    disagreement: NonNegative = 1.0
    """Weight of the disagreement between student and teacher."""
    js: Literal["exact", "reference"] = "exact"
    """The divergence as defined, or as the release computes it."""
    student_mode: Literal["eval", "train"] = "eval"
    """Mode of the student while the generator learns."""
    phase: NonNegative = 0.0
    """Weight of `ClassPhases`, not part of PRE-DFKD: for studies, it makes the stream one that is forgotten."""
    phase_classes: Count = 2
    """Classes per phase."""
    phase_length: Count = 5
    """Experiences per phase."""


class PreDFKD(OnlineMethod):
    """An online generator trained for confident, balanced, strongly activating and adversarial samples."""

    name = "predfkd"
    paper = "Binici et al., AAAI 2022"
    Options = PreDFKDOptions
    memory = "generative"
    latent = 1000
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "loss": {"kind": "l1"}},
        "schedule": {
            "batch_size": 512,
            "steps_per_experience": 10,
            "experiences_per_epoch": 72,
            "epochs": 400,
        },
    }

    def build(self, student: nn.Module) -> Parts:
        """G and its four terms."""
        from lra.networks.generators import StandardisedGenerator
        from lra.synthesis.terms import Activation, Balance, ClassPhases, Disagreement, OneHot

        o, problem = self.options, self.setup.problem
        generator = partial(StandardisedGenerator, mean=problem.mean, std=problem.std, bn_eps=o.bn_eps)
        terms = [
            OneHot(o.one_hot),
            Balance(o.balance),
            Activation(o.activation),
            Disagreement(o.disagreement, reference=o.js == "reference"),
            ClassPhases(o.phase, problem.classes, o.phase_classes, o.phase_length),
        ]
        # As released: the generator draws for the student with the statistics of the batch.
        modes = {"student_mode": o.student_mode, "sampling_mode": "train"}
        return self.parts(self.online(terms, generator, **modes))
