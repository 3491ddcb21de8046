"""AEAHL-RG: reusable generators, and a hard-label loss under adversarial-example attack.

"Reusable Generator Data-Free Knowledge Distillation with Adversarial Example Attack", known here from its code,
https://github.com/sunyafeng1996/AEAHL-RG.

For every task (a teacher T), with student S, generator h(z) = d((g1(z) + g2(z)) / 2), a = shift and flip:

    g1 is new;  g2 and d are new ("anew") or an earlier task's: trained at the same rate ("common"), ten times slower
    ("finetune"), or not at all ("fix")
    for every experience:
        z ~ N(0, I),  y uniform,  h' = copy of h
        10 times, x = h'(z):  h', z <- Adam on  bn·R_bn(T; a(x), with momentum) + one_hot·CE(T(a(x)), y)
                                                + adversarial·(-KL_1(S ‖ T), where S and T agree)
                              P <- Adam on ln CE(T(x + P(x)), least likely class of T(x))   (with the hard loss)
        h <- Adam on the summed gradients of h', each part at its own rate
        the best x enters the pool;  400 times, x from the pool (``--replay pool``), t = T(x), y = argmax t:
            (x, t) exchanged with its attacked version where T is more confident in that, or replaced by it with
            probability pa
            S <- SGD on soft·τ²KL(t ‖ S) + hard·CE(S, y)
    the next task gets d, and whichever of g1 and g2 moves T's features less

Twenty batches without the adversarial term precede the student's first step. Where the release differs, there is an
option: ``symmetric`` (g2 a copy of g1), ``follow: false`` (BatchNorm statistics never updated), ``branch: first``, and
those of ``aea``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lra.options import AttackOptions, Branch, NonNegative, Reuse
from lra.strategies.method import MetaGeneratorOptions, OptimisedMethod, Parts, published

if TYPE_CHECKING:
    from torch import nn

    from lra.synthesis.terms import Term


class AEAHLRGOptions(MetaGeneratorOptions):
    """Defaults are those of the release for CIFAR-10, ResNet-34 to ResNet-18."""

    meta: Literal["fomaml", "reptile"] = "fomaml"
    """How the persistent generators learn from what their copies learnt."""
    reuse: Reuse = "anew"
    """How an earlier task's generator and decoder are used."""
    branch: Branch = "features"
    """Which of the two generators is handed on to the next task."""
    follow: bool = True
    """Let the persistent generators take over the BatchNorm statistics of their copies."""
    symmetric: bool = False
    """Start the two generators from equal weights, as released."""
    hard_loss: bool = False
    """Add the hard-label loss; without it the student learns soft targets alone, and nothing is attacked."""
    soft: NonNegative = 0.9
    """Weight of the soft-target loss where the hard-label loss is added."""
    hard: NonNegative = 0.1
    """Weight of the hard-label loss."""
    aea: AttackOptions = AttackOptions()


class AEAHLRG(OptimisedMethod):
    """Two generators and a decoder, partly an earlier task's; soft and hard labels, with occasional attacks."""

    name = "aeahl-rg"
    paper = "AEAHL-RG, as released by Sun"
    Options = AEAHLRGOptions
    defaults = published(lr=0.2, epochs=400)

    def build(self, student: nn.Module) -> Parts:
        """Soft targets, and optionally hard ones and attacks; h, z, their three terms, and the attacker."""
        from lra.distillation.attack import Attacker, PerturbationNetwork, PerturbationTraining
        from lra.distillation.objective import Objective
        from lra.distillation.terms import HardLabel
        from lra.networks.composed import FusedGenerator
        from lra.networks.generators import sized_for
        from lra.strategies.plugins import AdversarialExamples, AttackCount, GeneratorLoss
        from lra.synthesis import labels
        from lra.synthesis.sources import ReusableSource, symmetric
        from lra.synthesis.terms import BNStat, OneHot

        o, problem, teacher, distance = self.options, self.setup.problem, self.setup.teacher, self.setup.distance
        fused = FusedGenerator(self.generator(), self.generator()).to(problem.device)
        fused = symmetric(fused) if o.symmetric else fused
        source = ReusableSource(fused, teacher, o.lr, o.latent_lr, o.steps, o.reuse, o.meta, o.branch, o.follow)
        terms: list[Term] = [BNStat(o.bn, o.bn_momentum), OneHot(o.one_hot), self.masked_adversary(o.adversarial)]
        synthesizer = self.batches(source, terms, labels.uniform(problem.classes))
        losses = GeneratorLoss(synthesizer)
        if not o.hard_loss:
            return self.parts(synthesizer, measures=[losses])

        objective = Objective(lambda student, teacher: o.soft * distance(student, teacher), [HardLabel(o.hard)])
        if not o.aea.enabled:
            return self.parts(synthesizer, objective, measures=[losses])

        width = o.aea.width or sized_for(problem.image)[0] // 2
        network = PerturbationNetwork(problem.image[0], min(problem.image[1:]), width=width)
        attacker = Attacker(network, teacher, problem, o.aea, o.crop_and_flip())
        synthesizer.terms.append(PerturbationTraining(attacker))
        attack = AdversarialExamples(attacker)
        return self.parts(synthesizer, objective, [attack], [losses, AttackCount(attack)])
