"""AEAHL-RG: reusable generators, and a hard loss under adversarial-example attack.

"Reusable Generator Data-Free Knowledge Distillation with Adversarial Example Attack", known here from its code,
https://github.com/sunyafeng1996/AEAHL-RG.

For every task (a teacher T), with student S, generator h(z) = d((g1(z) + g2(z)) / 2), a = shift and flip:

    g1 new;  g2, d new ("anew"), or an earlier task's: trained alike ("common"), 10 times slower ("finetune"),
    or not at all ("fix")
    for every experience:
        z ~ N(0, I),  y uniform,  h' = copy of h
        10 times, x = h'(z):  h', z <- Adam on  bn·R_bn(T; a(x), with momentum) + one_hot·CE(T(a(x)), y)
                                                + adversarial·(-KL_1(S ‖ T), where S and T agree)
                              P <- Adam on ln CE(T(x + P(x)), least likely class of T(x))      (with the hard loss)
        h <- Adam on the sum of h''s gradients, each part at its own rate
        the best x enters the pool;  400 times, x from the pool (``--replay pool``), t = T(x), y = argmax t:
            (x, t) swapped with attacked ones where T is surer of those, replaced by them with probability pa
            S <- SGD on soft·τ²KL(t ‖ S) + hard·CE(S, y)
    of g1 and g2 the one that moves T's features less is kept for the next task, and d

Before the student's first step come 20 batches without the adversarial term. What the release does otherwise is an
option: ``symmetric`` (g2 a copy of g1), ``follow: false`` (BatchNorm statistics never updated), ``branch: first``,
and those of ``aea``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lra.distillation.options import AttackOptions
from lra.options import NonNegative
from lra.strategies.optimised import MetaGeneratorOptions, OptimisedMethod, published
from lra.synthesis.options import Branch, Reuse

if TYPE_CHECKING:
    from avalanche.core import SupervisedPlugin
    from torch import Tensor, nn

    from lra.distillation.attack import Attacker
    from lra.distillation.objective import Objective
    from lra.strategies.metrics import Measure
    from lra.synthesis.batches import BatchSynthesizer
    from lra.synthesis.terms import Term


class AEAHLRGOptions(MetaGeneratorOptions):
    """As in the release for CIFAR-10, ResNet-34 to ResNet-18."""

    meta: Literal["fomaml", "reptile"] = "fomaml"
    reuse: Reuse = "anew"
    branch: Branch = "features"
    follow: bool = True
    symmetric: bool = False
    hard_loss: bool = False
    """Add the hard loss; without, the student learns soft targets alone, and nothing is attacked."""
    soft: NonNegative = 0.9
    hard: NonNegative = 0.1
    """Weights of the two, with the hard loss."""
    aea: AttackOptions = AttackOptions()


class AEAHLRG(OptimisedMethod):
    """Two generators and a decoder, some of them an earlier task's; soft and hard labels, attacked now and then."""

    name = "aeahl-rg"
    paper = "AEAHL-RG, as released by Sun"
    Options = AEAHLRGOptions
    defaults = published(lr=0.2, epochs=400)

    def objective(self, student: nn.Module) -> Objective:
        """Soft targets, and with them perhaps hard ones."""
        from lra.distillation.hard_loss import HardLabel
        from lra.distillation.objective import Objective

        o, distance = self.options, self.setup.distance
        if not o.hard_loss:
            return Objective(distance)

        def softened(student: Tensor, teacher: Tensor) -> Tensor:
            return o.soft * distance(student, teacher)

        return Objective(softened, [HardLabel(o.hard)])

    def synthesizer(self) -> BatchSynthesizer:
        """h, z, their three terms, and what learns to attack."""
        from lra.networks.composed import FusedGenerator
        from lra.synthesis import labels
        from lra.synthesis.sources import ReusableSource, symmetric
        from lra.synthesis.terms import BNStat, OneHot, PerturbationTraining

        o = self.options
        fused = FusedGenerator(self.generator(), self.generator()).to(self.setup.problem.device)
        if o.symmetric:
            fused = symmetric(fused)
        source = ReusableSource(
            fused, self.setup.teacher, o.lr, o.latent_lr, o.steps, o.reuse, o.meta, o.branch, o.follow
        )
        terms: list[Term] = [BNStat(o.bn, o.bn_momentum), OneHot(o.one_hot), self.masked_adversary(o.adversarial)]
        if self.attacked:
            terms.append(PerturbationTraining(self.attacker()))
        self.made = self.batches(source, terms, labels.uniform(self.setup.problem.classes))
        return self.made

    @property
    def attacked(self) -> bool:
        """Whether anything is: an attack acts through the hard loss."""
        return self.options.hard_loss and self.options.aea.enabled

    def attacker(self) -> Attacker:
        """A new one, of the size that suits the images; kept for `plugins`."""
        from lra.distillation.attack import Attacker
        from lra.networks.generator_presets import sized_for
        from lra.networks.perturbation import PerturbationNetwork

        o, problem = self.options, self.setup.problem
        width = o.aea.width or sized_for(problem.image)[0] // 2
        network = PerturbationNetwork(problem.image[0], min(problem.image[1:]), width=width)
        self.misleader = Attacker(network, self.setup.teacher, problem, o.aea, o.crop_and_flip())
        return self.misleader

    def plugins(self) -> list[SupervisedPlugin]:
        """The attack."""
        from lra.strategies.attacking import AdversarialExamples

        if not self.attacked:
            return []
        self.attacking = AdversarialExamples(self.misleader)
        return [self.attacking]

    def measures(self) -> list[Measure]:
        """The loss of every inner step, and what was attacked."""
        from lra.strategies.attacking import AttackCount
        from lra.strategies.generator_loss import GeneratorLoss

        counted = [AttackCount(self.attacking)] if self.attacked else []
        return [GeneratorLoss(self.made), *counted]
