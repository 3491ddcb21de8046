"""What the student is taught with: the distillation loss, named and explicit."""

from functools import partial
from typing import Literal

from torch import Tensor

from lra.distances import Distance, kl, l1
from lra.options import Options, Positive


class DistillationLoss:
    """Mean distance of student and teacher logits over a batch.

    Args:
        kind: "l1" on raw logits (PRE-DFKD, LRA) or "kl" at a temperature (most others).
        temperature: τ > 0, used by "kl"; the loss carries the factor τ².
    """

    def __init__(self, kind: Literal["l1", "kl"] = "l1", temperature: float = 1.0):
        self.distance: Distance = l1 if kind == "l1" else partial(kl, temperature=temperature)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar loss of logits (n, K) against logits (n, K)."""
        return self.distance(student, teacher).mean()


class DistillationOptions(Options):
    """The student's loss."""

    kind: Literal["l1", "kl"] = "l1"
    temperature: Positive = 1.0

    def build(self) -> DistillationLoss:
        """The loss these options describe."""
        return DistillationLoss(self.kind, self.temperature)
