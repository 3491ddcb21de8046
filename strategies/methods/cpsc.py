"""CPSC: a generator conditioned on the class through its BatchNorm, and features contrasted class by class.

Shao et al., "Conditional pseudo-supervised contrast for data-free knowledge distillation", Pattern Recognition 143,
2023; with the settings of its release.

For every experience, with teacher T, student S, generator G, D = KL_1(T ‖ S), M = mean (S - T)² of logits:

    6 times:  z ~ N(0, I),  y uniform,  x = G(z; y)
              G <- Adam on  adversarial·(-D) + squared·(-M) + bn·R_bn(T) + one_hot·CE(T, y)
                            + contrast·SupCon(φ(f_T), φ(f_S); y)
    5 times:  z, y drawn again,  S <- SGD on D + squared·M + classes·CE(S, argmax T)

SupCon takes the features of both networks as two views of an image, at temperature 0.07. Where these differ in size,
f_S passes through two linear layers with a ReLU between them, which learn with G and at its rate (ours; in the release
no optimiser step reaches them, so they stay random). The gradient of M flows through S alone, that of D through both.

The release differs in the following, each an option: cross-entropies computed as if probabilities were logits
(``double_softmax``), which at K = 100 lie between 3.6 and 4.6; on CIFAR-10 log M for G and the logarithm of the batch's
‖S - T‖₂ for the student (``logarithm``); S in train mode in G's steps too (``student_mode``); a new Adam for each step
of G, which is Adam without averages (``betas: [0, 0]``): every weight moves by ±lr. z gets a gradient there, but is
never updated.

Departures: S learns the class that T predicts where the paper takes y, the class G was given (equal where G succeeds);
G's rate is constant, as it is in the release, whose schedule acts on another optimiser. As published, the student's
rate rises for ten epochs (``schedule.rise``); the release then steps its cosine twice an epoch, which is not imitated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lra.options import AdversarialOptions, Count, NonNegative, Positive
from lra.strategies.method import BatchNormOptions, OnlineMethod, OnlineOptions, Parts

if TYPE_CHECKING:
    from torch import nn

    from lra.images import Image


class CPSCOptions(AdversarialOptions, BatchNormOptions, OnlineOptions):
    """Defaults are those of the release's command for CIFAR-100."""

    steps: Count = 6
    adversarial: NonNegative = 1.0
    squared: NonNegative = 5.0
    """Weight of the squared difference of logits, maximised in synthesis and minimised by the student."""
    logarithm: bool = False
    """Take the logarithm of that difference, as released for CIFAR-10."""
    one_hot: NonNegative = 0.7
    classes: NonNegative = 0.7
    """Weight of the student's cross-entropy."""
    double_softmax: bool = False
    """Treat probabilities as logits in both cross-entropies, as released."""
    contrast: NonNegative = 0.7
    """Weight of the contrastive loss between the teacher's and the student's features."""
    temperature: Positive = 0.07
    """Temperature of that contrastive loss."""
    student_mode: Literal["eval", "train"] = "eval"
    """Mode of the student in synthesis; ``train`` as released, where its BatchNorm statistics absorb these batches."""


class CPSC(OnlineMethod):
    """A generator conditioned on the class through BatchNorm, with features contrasted class by class."""

    name = "cpsc"
    paper = "Shao et al., Pattern Recognition 2023"
    Options = CPSCOptions
    latent = 256
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "loss": {"kind": "kl"}},
        "schedule": {"batch_size": 512, "steps_per_experience": 5, "experiences_per_epoch": 50, "epochs": 600},
    }

    def build(self, student: nn.Module) -> Parts:
        """G, its five terms and the projection of features for one of them; for the student D, M and the class."""
        from lra.distillation.objective import Objective
        from lra.distillation.terms import HardLabel, SquaredLogits
        from lra.networks.conditional import ConditionalNormGenerator
        from lra.synthesis.online import ConditionedOnlineGenerator
        from lra.synthesis.terms import Adversarial, BNStat, OneHot, SquaredGap, SupervisedContrast

        o, problem, distance = self.options, self.setup.problem, self.setup.distance

        def told(latent: int, image: Image, width: int) -> nn.Module:
            return ConditionalNormGenerator(
                latent, image, problem.classes, mean=problem.mean, std=problem.std, width=width
            )

        terms = [
            Adversarial(o.adversarial, distance),
            SquaredGap(o.squared, o.logarithm),
            BNStat(o.bn),
            OneHot(o.one_hot, double_softmax=o.double_softmax),
        ]
        project = self.projection(student) if o.contrast else None
        if project is not None:
            terms.append(SupervisedContrast(o.contrast, project, o.temperature))
        modes = {"student_mode": o.student_mode, "sampling_mode": "train"}
        synthesizer = self.online(terms, told, ConditionedOnlineGenerator, **modes)
        if project is not None and (learnt := list(project.parameters())):
            synthesizer.optimiser.add_param_group({"params": learnt})
        learns = [SquaredLogits(o.squared, o.logarithm), HardLabel(o.classes, o.double_softmax)]
        return self.parts(synthesizer, Objective(distance, learns))

    def projection(self, student: nn.Module) -> nn.Module:
        """Maps the student's features (n, d') to the teacher's (n, d); the identity where the sizes are equal."""
        from torch import nn

        from lra.features import feature_size

        image, device = self.setup.problem.image, self.setup.problem.device
        own, wanted = feature_size(student, image), feature_size(self.setup.teacher.network, image)
        if own == wanted:
            return nn.Identity()
        return nn.Sequential(nn.Linear(own, own), nn.ReLU(), nn.Linear(own, wanted)).to(device)
