"""CuDFKD: a curriculum, from samples the student finds easy to those on which it disagrees with the teacher.

Li et al., "Dynamic Data-Free Knowledge Distillation by Easy-to-Hard Learning Strategy", Information Sciences 2023,
https://arxiv.org/abs/2208.13648; with the settings of the authors' benchmark.

For every experience, with teacher T, student S, generator G, at student step t and epoch e:

    z ~ N(0, I),  x = G(z)
    G <- Adam on  one_hot·CE(T(x), argmax T(x)) + bn·R_bn(x) + balance·(-H(mean softmax T(x)/τ))
                  - a(e)·KL_3(S(x), T(x))
    10 times:  x = G(z) for fresh z,  ℓ_i = D(S(x_i), T(x_i)),  v_i = (1 + e^-λ)/(1 + e^(ℓ_i - λ)),
               S <- SGD on mean v_i·ℓ_i,   λ = λ0 + rate·t

a(e) is 0 for the first quarter of the epochs, then grows by 0.5 per epoch until three quarters of them are over. The
weights v may also be hard or soft (``weights``). The release gives a whole batch one weight (``granularity: batch``),
and calls a clamped, reversed divergence js (``adversary: js_reversed``). Its scripts distil by L1 whatever temperature
they name; here D is ``student.loss``, by default the KL at temperature 20 that they name. The release can keep a pool
of all images in memory; here that is a matter of ``--replay``. It computes a regulariser of v and throws it away; here
that is left out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from lra.options import ActivationOptions, BalanceOptions, Fraction, NonNegative, Positive
from lra.strategies.method import BatchNormOptions, OnlineMethod, OnlineOptions, Parts

if TYPE_CHECKING:
    from avalanche.core import SupervisedPlugin
    from torch import nn

    from lra.distillation.objective import SelfPaced
    from lra.images import Image
    from lra.networks.generators import UpsamplingGenerator
    from lra.synthesis.terms import Adversarial, Term


class CurriculumOptions(BalanceOptions, ActivationOptions, BatchNormOptions, OnlineOptions):
    """Defaults are those of AdaDFKD's benchmark for CIFAR-10, ResNet-34 to ResNet-18."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    one_hot: NonNegative = 1.0
    bn: NonNegative = 1.0
    balance: NonNegative = 20.0
    balance_temperature: Positive = 20.0
    """Temperature of the mean prediction; as published, the same as for distillation."""
    activation: NonNegative = 0.0
    adversary: Literal["kl", "js", "js_reversed"] = "kl"
    """The divergence that the generator maximises, at τ = 3; js_reversed is the release's form of js."""
    adversarial: NonNegative = 0.0
    """Initial weight of the adversarial term."""
    adversarial_slope: NonNegative = 0.0
    """Growth per epoch of the adversarial term's weight, between ``begin`` and ``end``."""
    begin: Fraction = 0.25
    """Fraction of the run after which the curriculum starts to get harder."""
    end: Fraction = 0.75
    """Fraction of the run after which it gets no harder."""
    age: NonNegative = 2.0
    """λ0, the initial λ: samples with losses well below λ get the most weight."""
    age_rate: NonNegative = 1e-4
    """Growth of λ per student step (published: 1e-4 for CIFAR-10, otherwise 2e-5)."""
    weights: Literal["hard", "soft", "log"] = "log"
    """How the loss of a sample becomes its weight."""
    granularity: Literal["sample", "batch"] = "sample"
    """Whether each sample or the whole batch gets a weight; the release weights the batch."""


class CurriculumMethod(OnlineMethod):
    """What CuDFKD and AdaDFKD share: the generator's terms, and the schedules of both sides."""

    latent = 512

    def terms(self) -> tuple[list[Term], Adversarial]:
        """The generator's terms, and separately the adversarial one among them, whose weight follows a schedule."""
        from lra.distances import js, js_reversed, kl
        from lra.synthesis.terms import Activation, Adversarial, Balance, BNStat, OneHot

        o = self.options
        adversaries = {"kl": kl, "js": js, "js_reversed": js_reversed}
        adversary = Adversarial(o.adversarial, partial(adversaries[o.adversary], temperature=3.0))
        balance = Balance(o.balance, o.balance_temperature)
        return [OneHot(o.one_hot), BNStat(o.bn), balance, Activation(o.activation), adversary], adversary

    def clocks(self, paced: SelfPaced, adversary: Adversarial) -> list[SupervisedPlugin]:
        """λ by the step; the adversarial weight by the epoch: what epoch e ends with applies in epoch e + 1."""
        from lra.distillation.objective import ramp
        from lra.strategies.plugins import EpochClock, StepClock

        o, setup = self.options, self.setup

        def grow_older(step: int) -> None:
            paced.age = o.age + o.age_rate * step

        def grow_harder(completed: int) -> None:
            last = max(0, completed - 1)
            adversary.weight = ramp(last, setup.epochs, o.adversarial, o.adversarial_slope, o.begin, o.end)

        return [StepClock(grow_older), EpochClock(grow_harder, setup.experiences_per_epoch)]


class CuDFKDOptions(CurriculumOptions):
    """Defaults are those for CIFAR-10, ResNet-34 to ResNet-18."""

    adversarial_slope: NonNegative = 0.5


class CuDFKD(CurriculumMethod):
    """An online generator that gradually becomes adversarial, and a student that learns the easy samples first."""

    name = "cudfkd"
    paper = "Li et al., Information Sciences 2023"
    Options = CuDFKDOptions
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "loss": {"kind": "kl", "temperature": 20.0}},
        "schedule": {"batch_size": 512, "steps_per_experience": 10, "experiences_per_epoch": 40, "epochs": 250},
    }

    def build(self, student: nn.Module) -> Parts:
        """D, self-paced; G and its terms; the schedules of both."""
        from lra.distillation.objective import SelfPaced

        o = self.options
        paced = SelfPaced(self.setup.distance, (), o.age, o.weights, o.granularity)
        terms, adversary = self.terms()
        return self.parts(self.online(terms, started_small), paced, self.clocks(paced, adversary))


def started_small(latent: int, image: Image, *, width: int) -> UpsamplingGenerator:
    """DAFL's generator, initialised from N(0, 0.02) like DCGAN's."""
    from lra.networks.generators import gen_l, reset_parameters_dcgan

    generator = gen_l(latent, image, width=width)
    reset_parameters_dcgan(generator)
    return generator
