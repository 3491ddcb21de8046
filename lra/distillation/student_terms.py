"""Losses that compare what goes on inside student and teacher, for the student to minimise."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.distillation.objective import StudentTerm
from lra.distillation.witness import Witness
from lra.problem import Batch


class InfoNCE(StudentTerm):
    """Each sample's student features should be told by the teacher's among those of the batch (AdaDFKD).

    Per sample the cross-entropy of φ(f_T)_i·φ(project(f_S))_j / τ over j, with j = i right; φ scales to unit length.

    Args:
        weight: factor in the sum.
        witness: knows the features.
        project: student features (n, d') to the teacher's (n, d); learns with the student.
        temperature: τ.
    """

    def __init__(self, weight: float, witness: Witness, project: nn.Module, temperature: float = 0.07):
        super().__init__(weight)
        self.project = project
        self.temperature = temperature
        self._witness = witness

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """(n,), ≥ 0."""
        anchors = F.normalize(self._witness.teacher_features(batch), dim=1)
        keys = F.normalize(self.project(self._witness.student_features(batch)), dim=1)
        right = torch.arange(len(keys), device=keys.device)
        return F.cross_entropy(anchors @ keys.T / self.temperature, right, reduction="none")


class AttentionTransfer(StudentTerm):
    """The student should look where the teacher looks (Zagoruyko and Komodakis, ICLR 2017; in ZSKT with β = 250).

    Σ_l mean((a(S_l) - a(T_l))²) per sample, a(A) = φ(vec(mean_c A²)), over the stages of both networks that have
    the same resolution.

    Args:
        weight: factor in the sum (ZSKT's β).
        witness: knows the maps.
    """

    def __init__(self, weight: float, witness: Witness):
        super().__init__(weight)
        self._witness = witness

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """(n,), ≥ 0.

        Raises:
            ValueError: if no two stages have the same resolution.
        """
        teacher = {maps.shape[2:]: maps for maps in self._witness.teacher_maps(batch)}
        pairs = [
            (maps, teacher[maps.shape[2:]]) for maps in self._witness.student_maps(batch) if maps.shape[2:] in teacher
        ]
        if not pairs:
            raise ValueError(
                "attention transfer: student and teacher work at no common resolution; set its weight to 0"
            )
        return torch.stack([(attention(s) - attention(t)).square().mean(dim=1) for s, t in pairs]).sum(dim=0)


def attention(maps: Tensor) -> Tensor:
    """Maps (n, c, h, w) to unit vectors (n, h·w) of mean squared activation."""
    return F.normalize(maps.square().mean(dim=1).flatten(1), dim=1)
