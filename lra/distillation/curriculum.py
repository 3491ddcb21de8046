"""From easy to hard: weights for the samples a student learns from, and the clocks that move such things.

Self-paced learning: Kumar et al., NeurIPS 2010; in data-free distillation: CuDFKD and AdaDFKD.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lra.distances import Distance
from lra.distillation.objective import Objective, StudentTerm
from lra.problem import Teacher
from lra.view import StudentView

Form = Literal["hard", "soft", "log"]


def self_paced_weights(losses: Tensor, age: float, form: Form) -> Tensor:
    """Weights v in [0, 1] for losses ℓ ≥ 0 of any shape, at age λ; without gradient.

    Args:
        losses: ℓ.
        age: λ; losses well below it count.
        form: ``"hard"`` 1[ℓ < λ]; ``"soft"`` 1[ℓ < λ]·(1 - ℓ/λ); ``"log"`` (1 + e^-λ)/(1 + e^(ℓ-λ)), which is 1 at
            ℓ = 0 and about a half at ℓ = λ.
    """
    losses = losses.detach()
    if form == "log":
        level = torch.as_tensor(age, dtype=losses.dtype, device=losses.device)
        return (1 + torch.exp(-level)) * torch.sigmoid(level - losses)
    easy = (losses < age).to(losses.dtype)
    return easy if form == "hard" else easy * (1 - losses / max(age, 1e-12))


class SelfPaced(Objective):
    """Mean of v_i·ℓ_i, where ℓ_i is a sample's loss, all terms included, and v_i its self-paced weight.

    Args:
        distance: per-sample distance of logits.
        terms: further terms of ℓ.
        age: λ; a clock moves it.
        form: see `self_paced_weights`.
        granularity: ``"sample"``, or ``"batch"``, one weight for the batch's mean loss, which makes it an adaptive
            learning rate and not a choice of samples; this is what the releases do.
        teacher: see `Objective`.
    """

    def __init__(
        self,
        distance: Distance,
        terms: Sequence[StudentTerm] = (),
        age: float = 1.0,
        form: Form = "log",
        granularity: Literal["sample", "batch"] = "sample",
        teacher: Teacher | None = None,
    ):
        super().__init__(distance, terms, teacher)
        self.age = age
        self.form: Form = form
        self.granularity = granularity

    def loss(self, view: StudentView) -> Tensor:
        """Scalar loss of what was seen."""
        weights, losses = self._weighed(view)
        return (weights * losses).mean()

    def parts(self, view: StudentView) -> dict[str, Tensor]:
        """The parts of any objective, with the mean weight v and the difficulty Σvℓ/Σv of what is learnt."""
        weights, losses = self._weighed(view)
        difficulty = (weights * losses).sum() / weights.sum().clamp_min(1e-12)
        return super().parts(view) | {"self_paced_weight": weights.mean(), "difficulty": difficulty}

    def _weighed(self, view: StudentView) -> tuple[Tensor, Tensor]:
        losses = self.per_sample(view)
        if self.granularity == "batch":
            losses = losses.mean()
        return self_paced_weights(losses, self.age, self.form), losses


def ramp(epoch: int, epochs: int, start: float, slope: float, begin: float, end: float) -> float:
    """A weight that grows by ``slope`` an epoch between two shares of a run, b = ⌊begin·E⌋ and c = ⌊end·E⌋.

    ``start`` up to and with epoch b; start + (epoch - b)·slope until c; start + (c - b)·slope from there on.
    """
    first, last = _share(begin, epochs), _share(end, epochs)
    return start + (min(max(epoch, first), max(first, last)) - first) * slope


def ring_hardness(epoch: int, epochs: int, length: float, begin: float, end: float) -> float:
    """AdaDFKD's h in [0, 1 - length]: 0 up to epoch ⌊begin·E⌋, then rising evenly for ⌊(end - begin)·E⌋ epochs."""
    highest = 1 - length
    rise = max(1, _share(end - begin, epochs))
    return min(max(highest * (epoch - _share(begin, epochs)) / rise, 0.0), highest)


def _share(part: float, epochs: int) -> int:
    """⌊part·E⌋, where 0.5·100 is 50 even if computed as 49.999…"""
    return int(part * epochs + 1e-9)
