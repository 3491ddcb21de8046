"""AdaDFKD: CuDFKD's curriculum, and relations between teacher and student features that get harder too.

Li et al., "AdaDFKD: Exploring Adaptive Inter-Sample Relationship in Data-Free Knowledge Distillation", Neural
Networks 2024; with the settings of the authors' benchmark.

For every experience, with teacher T, student S, generator G, at student step t and epoch e:

    z ~ N(0, I),  x = G(z),  q = φ(f_T(x)),  k = φ(f_S(x))
    G <- Adam on  CuDFKD's loss + ring·L_ring(q, k; queue, h(e));  k enters the queue
    10 times:  x = G(z) for fresh z,  ℓ_i = D(S(x_i), T(x_i)) + nce·InfoNCE(q, k)_i,
               S <- SGD on mean v_i·ℓ_i,   v_i = (1 + e^-λ)/(1 + e^(ℓ_i - λ)),   λ = λ0 + rate·t

L_ring (see `RingNCE`) contrasts the pair (q_i, k_i) with past student features: those whose similarity to q_i ranks
within a window of the queue, which moves from the least to the most similar as h(e) grows. There are three schedules:
λ advances by the step, h and the adversarial weight by the epoch (in the published settings that weight is constant).

Where features differ in size, f_S passes through one linear layer, trained with the student; the release creates a
new, untrained one at every call. The release also requires the queue to hold a multiple of the batch, and gives a
whole batch one weight (``granularity: batch``). Its unused arguments (mode, mu, neg, warmup) are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.options import Count, Fraction, NonNegative, Positive
from lra.strategies.method import Parts
from lra.strategies.methods.cudfkd import CurriculumMethod, CurriculumOptions, started_small

if TYPE_CHECKING:
    from torch import nn


class AdaDFKDOptions(CurriculumOptions):
    """Defaults are those for CIFAR-10, ResNet-34 to ResNet-18."""

    adversarial: NonNegative = 1.0
    age: NonNegative = 2.2
    ring: NonNegative = 0.1
    """Weight of the ring's contrastive loss (L_ring) in synthesis."""
    negatives: Count = 4096
    """Student features in the queue; at least a batch."""
    ring_length: Fraction = 0.9
    """Length of the window, as a fraction of the queue."""
    nce: NonNegative = 0.1
    """Weight of InfoNCE in the student's loss."""
    nce_temperature: Positive = 0.07
    """Temperature of both contrastive losses."""


class AdaDFKD(CurriculumMethod):
    """CuDFKD's curriculum plus a contrastive loss on features, whose negatives get harder."""

    name = "adadfkd"
    paper = "Li et al., Neural Networks 2024"
    Options = AdaDFKDOptions
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "loss": {"kind": "kl", "temperature": 20.0}},
        "schedule": {"batch_size": 768, "steps_per_experience": 10, "experiences_per_epoch": 40, "epochs": 300},
    }

    def build(self, student: nn.Module) -> Parts:
        """D and InfoNCE, self-paced; G, its terms and the ring; CuDFKD's two schedules and the ring's."""
        from torch import nn

        from lra.distillation.objective import SelfPaced, ring_hardness
        from lra.distillation.terms import InfoNCE
        from lra.features import feature_size
        from lra.strategies.plugins import EpochClock
        from lra.synthesis.terms import RingNCE

        o, setup, problem, teacher = self.options, self.setup, self.setup.problem, self.setup.teacher
        if o.negatives < setup.batch_size:
            raise ValueError(f"synthesis.negatives = {o.negatives}: give at least a batch, {setup.batch_size}")
        sizes = feature_size(student, problem.image), feature_size(teacher.network, problem.image)
        project = nn.Identity() if sizes[0] == sizes[1] else nn.Linear(*sizes).to(problem.device)
        contrast = InfoNCE(o.nce, project, o.nce_temperature)
        paced = SelfPaced(setup.distance, [contrast], o.age, o.weights, o.granularity, teacher)
        ring = RingNCE(o.ring, o.negatives, sizes[1], project, o.ring_length, o.nce_temperature, problem.device)

        def tighten(completed: int) -> None:
            ring.hardness = ring_hardness(completed, setup.epochs, o.ring_length, o.begin, o.end)

        terms, adversary = self.terms()
        tightening = EpochClock(tighten, setup.experiences_per_epoch)
        return self.parts(
            self.online([*terms, ring], started_small), paced, [*self.clocks(paced, adversary), tightening]
        )
