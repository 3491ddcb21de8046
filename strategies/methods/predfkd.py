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

The release's divergence is clamped and runs the wrong way (``js: reference``), the student answers with batch
statistics while the generator learns (``student_mode: train``), and its BatchNorm has an eps of 0.8 where a
momentum may have been meant (``bn_eps``, kept). It weighs the entropy by 5 in log10, which is 5 / ln 10 in nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lra.options import Count, NonNegative, Positive
from lra.strategies.method import Method, SynthesisOptions

if TYPE_CHECKING:
    from lra.synthesis.online import OnlineGenerator


class PreDFKDOptions(SynthesisOptions):
    """Published for CIFAR; latent and width follow the image size unless set."""

    lr: Positive = 0.02
    steps: Count = 1
    latent: Count | None = None
    width: Count | None = None
    bn_eps: Positive = 0.8
    one_hot: NonNegative = 1.0
    balance: NonNegative = 2.171472409516259
    activation: NonNegative = 0.1
    disagreement: NonNegative = 1.0
    js: Literal["exact", "reference"] = "exact"
    student_mode: Literal["eval", "train"] = "eval"
    phase: NonNegative = 0.0
    """Weight of `ClassPhases`, which is no part of PRE-DFKD: it makes the stream forgettable, for studies."""
    phase_classes: Count = 2
    phase_length: Count = 5
    """Experiences per phase."""


class PreDFKD(Method):
    """An online generator that wants confident, balanced, active and disputed samples."""

    name = "predfkd"
    paper = "Binici et al., AAAI 2022"
    Options = PreDFKDOptions
    memory = "generative"
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "loss": {"kind": "l1"}},
        "schedule": {
            "batch_size": 512,
            "steps_per_experience": 10,
            "experiences_per_epoch": 72,
            "epochs": 400,
        },
    }

    def synthesizer(self) -> OnlineGenerator:
        """G and its four terms."""
        import torch

        from lra.networks.generator_presets import sized_for
        from lra.networks.generators import StandardisedGenerator
        from lra.synthesis.online import OnlineGenerator
        from lra.synthesis.terms import Activation, Balance, ClassPhases, Disagreement, OneHot

        o, problem = self.options, self.setup.problem
        width, latent = sized_for(problem.image)
        generator = StandardisedGenerator(
            o.latent or latent,
            problem.image,
            mean=problem.mean,
            std=problem.std,
            width=o.width or width,
            bn_eps=o.bn_eps,
        ).to(problem.device)
        return OnlineGenerator(
            generator,
            torch.optim.Adam(generator.parameters(), lr=o.lr),
            [
                OneHot(o.one_hot),
                Balance(o.balance),
                Activation(o.activation),
                Disagreement(o.disagreement, reference=o.js == "reference"),
                ClassPhases(o.phase, problem.classes, o.phase_classes, o.phase_length),
            ],
            self.setup.teacher,
            latent=o.latent or latent,
            batch_size=self.setup.batch_size,
            steps=o.steps,
            student_mode=o.student_mode,
            # As released: the generator draws for the student with the statistics of the batch.
            sampling_mode="train",
        )
