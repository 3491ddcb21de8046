"""RGAL's terms of a student step: triplets of its features, and the teacher's channels (Liang and Fu, IJCV 2024)."""

from typing import Literal

import torch
from torch import Tensor

from lra.objective import StudentTerm
from lra.problem import Batch
from lra.relations import ChannelDistillation, TripletSampler, gram_masked, triplet_loss
from lra.witness import Witness

Compared = Literal["global", "features", "logits"]


class StudentTriplet(StudentTerm):
    """Pull one class together and push different classes apart, in the student's own features.

    The teacher names the classes; the student's logits give the distances that negatives are drawn by.

    Args:
        weight: factor in the sum.
        witness: of the student's features.
        sampler: of negatives.
        compared: ``"global"`` penultimate features, ``"features"`` stage maps, or ``"logits"``.
        margin: of the hinge.
        start: the first stage to compare, from 0.

    Attributes:
        fallback: share of the last batch's anchors without a negative in the window.
    """

    def __init__(
        self,
        weight: float,
        witness: Witness,
        sampler: TripletSampler,
        compared: Compared = "global",
        margin: float = 0.2,
        start: int = 2,
    ):
        super().__init__(weight)
        self.witness, self.sampler, self.compared = witness, sampler, compared
        self.margin, self.start = margin, start
        self.fallback = torch.zeros(())

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """() ≥ 0."""
        triplets = self.sampler(logits.detach(), batch.logits.argmax(dim=1))
        self.fallback = triplets.fallback
        return triplet_loss(self._maps(logits, batch), triplets, self.margin)

    def _maps(self, logits: Tensor, batch: Batch) -> list[Tensor]:
        if self.compared == "logits":
            return [logits]
        if self.compared == "global":
            return [self.witness.student_features(batch)]
        maps = self.witness.student_maps(batch)
        return maps[self.start :] or maps[-1:]


class Channels(StudentTerm):
    """Channel averages of every stage as the teacher's, through learnt adapters; and, if asked, the masked Gram term.

    Student and teacher are compared stage by stage from the last one backwards, as many as both have.

    Args:
        weight: of the channel averages.
        witness: of stage maps.
        distillation: the adapters, for the stages compared.
        gram: weight of `lra.relations.gram_masked`, relative to ``weight``; 0 as released.
    """

    def __init__(self, weight: float, witness: Witness, distillation: ChannelDistillation, gram: float = 0.0):
        super().__init__(weight)
        self.witness, self.distillation, self.gram = witness, distillation, gram

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """() ≥ 0."""
        count = len(self.distillation.adapters)
        student, teacher = self.witness.student_maps(batch)[-count:], self.witness.teacher_maps(batch)[-count:]
        loss = self.distillation(student, teacher)
        if self.gram:
            loss = loss + self.gram * gram_masked(self.distillation.adapted(student), teacher)
        return loss


def channels_between(student_maps: list[Tensor], teacher_maps: list[Tensor]) -> ChannelDistillation:
    """Adapters for the last stages that both networks have, given a sample of their maps."""
    count = min(len(student_maps), len(teacher_maps))
    return ChannelDistillation(
        [each.shape[1] for each in student_maps[-count:]], [each.shape[1] for each in teacher_maps[-count:]]
    )
