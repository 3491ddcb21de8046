"""DFME: distillation from a black box, which answers queries but gives no gradients.

Truong et al., "Data-Free Model Extraction", CVPR 2021, https://arxiv.org/abs/2011.14779; with the settings of
AdaDFKD's benchmark.

For every experience, with black-box teacher T, student S, generator G:

    5 times:  z ~ N(0, I),  x = G(z),  G <- Adam along the estimated gradient of -adversarial·D(S(x), T(x)),
              mean_j d·(ℓ(x + εu_j) - ℓ(x))/ε·u_j for ``directions`` random unit u_j
    5 times:  x = G(z) for fresh z,  S <- SGD on D(S(x), T(x))

D is ``student.loss``, by default L1, which the paper finds best. A black box gives only probabilities: D compares with
the logits recovered from them, log-probabilities minus their mean (``logits: recovered``). The benchmark lets the
student see the true ones (``logits: true``), passes the query points through another tanh (``squash``), and under KL
does not divide by the batch (``reduction: sum``). It loses points of its last chunk; no option imitates that, a batch
is split exactly here. Left out: the paper's step decay of both learning rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lra.options import AdversarialOptions, Count, Fraction, Positive
from lra.strategies.method import OnlineMethod, OnlineOptions, Parts

if TYPE_CHECKING:
    from torch import nn


class DFMEOptions(AdversarialOptions, OnlineOptions):
    """Defaults are those of AdaDFKD's benchmark."""

    lr: Positive = 1e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    steps: Count = 5
    adversarial: Positive = 1.0
    directions: Count = 1
    """Random directions per image along which the teacher is queried."""
    epsilon: Positive = 1e-3
    """Step length ε in each direction."""
    logits: Literal["recovered", "true"] = "recovered"
    """What the student learns from: log-probabilities minus their mean, or true logits, which no black box reveals."""
    reduction: Literal["mean", "sum"] = "mean"
    """Reduction of the generator's loss over the batch."""
    squash: bool = False
    """Pass the query points through another tanh, as released."""
    chunk: Count = 4992
    """Images per forward pass of the queries."""


class DFME(OnlineMethod):
    """An online generator of adversarial samples for a black-box teacher."""

    name = "dfme"
    paper = "Truong et al., CVPR 2021"
    Options = DFMEOptions
    latent = 256
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "loss": {"kind": "l1"}},
        "schedule": {"batch_size": 256, "steps_per_experience": 5, "experiences_per_epoch": 80, "epochs": 210},
    }

    def build(self, student: nn.Module) -> Parts:
        """G and its one term, which always sees recovered logits; D to those, or to the true ones."""
        from lra.distances import from_recovered
        from lra.distillation.objective import Objective
        from lra.networks.generators import gen_s
        from lra.synthesis.terms import ZerothOrder

        o, distance = self.options, self.setup.distance
        recovered = from_recovered(distance)
        term = ZerothOrder(
            o.adversarial,
            recovered,
            directions=o.directions,
            step=o.epsilon,
            reduction=o.reduction,
            squash=o.squash,
            chunk=o.chunk,
        )
        return self.parts(self.online([term], gen_s), Objective(distance if o.logits == "true" else recovered))
