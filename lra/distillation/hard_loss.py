"""The hard loss: the student also learns the class that the teacher names (AEAHL-RG)."""

from torch import Tensor
from torch.nn import functional as F

from lra.distillation.objective import StudentTerm
from lra.problem import Batch


class HardLabel(StudentTerm):
    """Cross-entropy of the student with a batch's classes, at temperature 1.

    They are the teacher's argmax; where images were attacked, of what they were before.
    """

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """(n,) ≥ 0."""
        return F.cross_entropy(logits, batch.classes, reduction="none")
