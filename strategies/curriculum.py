"""What CuDFKD and AdaDFKD share: synthesis terms, a self-paced student, and the clocks of both."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from lra.options import Fraction, NonNegative, Positive
from lra.strategies.online import OnlineMethod, OnlineOptions

if TYPE_CHECKING:
    from avalanche.core import SupervisedPlugin

    from lra.distillation.curriculum import SelfPaced
    from lra.distillation.student_terms import InfoNCE
    from lra.networks.generators import UpsamplingGenerator
    from lra.networks.shapes import Image
    from lra.synthesis.terms import Term


class CurriculumOptions(OnlineOptions):
    """As in AdaDFKD's benchmark, whose first cell is CIFAR-10, ResNet-34 to ResNet-18."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    one_hot: NonNegative = 1.0
    bn: NonNegative = 1.0
    balance: NonNegative = 20.0
    balance_temperature: Positive = 20.0
    """Of the mean prediction; published: that of the distillation."""
    activation: NonNegative = 0.0
    adversary: Literal["kl", "js", "js_reversed"] = "kl"
    """What the generator raises, at τ = 3; js_reversed is the release's form of js."""
    adversarial: NonNegative = 0.0
    """Its weight at first."""
    adversarial_slope: NonNegative = 0.0
    """Its growth per epoch between ``begin`` and ``end``."""
    begin: Fraction = 0.25
    end: Fraction = 0.75
    """Shares of the run between which things get harder."""
    age: NonNegative = 2.0
    """λ0: student losses well below λ count."""
    age_rate: NonNegative = 1e-4
    """Growth of λ per student step (published: 1e-4 for CIFAR-10, else 2e-5)."""
    weights: Literal["hard", "soft", "log"] = "log"
    granularity: Literal["sample", "batch"] = "sample"
    """Of the weights; batch is what the release does."""


class CurriculumMethod(OnlineMethod):
    """An online generator that gets adversarial by and by, and a student that learns the easy samples first."""

    latent = 512

    def curriculum(self, *terms: InfoNCE) -> SelfPaced:
        """The student's objective, kept for its clock."""
        from lra.distillation.curriculum import SelfPaced

        o = self.options
        self.paced = SelfPaced(self.setup.distance, terms, o.age, o.weights, o.granularity)
        return self.paced

    def common_terms(self) -> list[Term]:
        """The generator's terms, the adversarial one kept for its clock."""
        from lra.distances import js, js_reversed, kl
        from lra.synthesis.terms import Activation, Adversarial, Balance, BNStat, OneHot

        o = self.options
        adversaries = {"kl": kl, "js": js, "js_reversed": js_reversed}
        self.adversary = Adversarial(o.adversarial, partial(adversaries[o.adversary], temperature=3.0))
        return [
            OneHot(o.one_hot),
            BNStat(o.bn),
            Balance(o.balance, o.balance_temperature),
            Activation(o.activation),
            self.adversary,
        ]

    def plugins(self) -> list[SupervisedPlugin]:
        """λ by the step; the adversarial weight by the epoch: what epoch e ends with is used in epoch e + 1."""
        from lra.distillation.curriculum import ramp
        from lra.strategies.clocks import EpochClock, StepClock

        o, per_epoch = self.options, self.setup.experiences_per_epoch

        def grow_older(step: int) -> None:
            self.paced.age = o.age + o.age_rate * step

        def grow_harder(completed: int) -> None:
            last = max(0, completed - 1)
            self.adversary.weight = ramp(last, self.setup.epochs, o.adversarial, o.adversarial_slope, o.begin, o.end)

        return [StepClock(grow_older), EpochClock(grow_harder, per_epoch)]


def started_small(latent: int, image: Image, *, width: int) -> UpsamplingGenerator:
    """DAFL's generator, started from N(0, 0.02) like DCGAN's."""
    from lra.networks.generator_presets import gen_l
    from lra.networks.initialisation import reset_parameters_dcgan

    generator = gen_l(latent, image, width=width)
    reset_parameters_dcgan(generator)
    return generator
