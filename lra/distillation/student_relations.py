"""RGAL's terms of a student step: triplets of its features, and the teacher's channels (Liang and Fu, IJCV 2024)."""

import torch
from torch import Tensor, nn

from lra.distillation.objective import StudentTerm
from lra.distillation.options import Compared
from lra.distillation.witness import Witness
from lra.features import Tap
from lra.preservation import in_mode
from lra.problem import Batch
from lra.relations import ChannelDistillation, TripletSampler, gram_masked, triplet_loss
from lra.synthesis.view import stages_of


class StudentTriplet(StudentTerm):
    """Pull one class together and push different classes apart, in the student's own features.

    The teacher names the classes; the student's logits give the distances that negatives are drawn by.

    Args:
        weight: factor in the sum.
        witness: of the student's features; logits need none.
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
        witness: Witness | None,
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
        if self.compared == "logits" or self.witness is None:
            return [logits]
        if self.compared == "global":
            return [self.witness.student_features(batch)]
        maps = self.witness.student_maps(batch)
        return maps[self.start :] or maps[-1:]


class Channels(StudentTerm):
    """Channel averages of every stage as the teacher's, through learnt adapters.

    Student and teacher are compared stage by stage from the last one backwards, as many as both have.

    Args:
        weight: factor in the sum.
        witness: of stage maps.
        adapters: for the stages compared.
    """

    def __init__(self, weight: float, witness: Witness, adapters: ChannelDistillation):
        super().__init__(weight)
        self.witness, self.adapters = witness, adapters

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """() ≥ 0."""
        return self.adapters(*self._maps(batch))

    def _maps(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        count = len(self.adapters.adapters)
        return self.witness.student_maps(batch)[-count:], self.witness.teacher_maps(batch)[-count:]


class Gram(Channels):
    """Maps of every stage as the teacher's, most where its channels correlate least; see `gram_masked`."""

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """() ≥ 0; raises ``ValueError`` where maps of a stage differ in size."""
        student, teacher = self._maps(batch)
        return gram_masked(self.adapters.adapted(student), teacher)


@torch.no_grad()
def adapters_between(student: nn.Module, teacher: nn.Module, image: tuple[int, int, int]) -> ChannelDistillation:
    """Fresh adapters for the last stages that both networks have, found with one black image (C, H, W)."""
    blank = next(teacher.parameters()).new_zeros(1, *image)
    channels = []
    for network in (student, teacher):
        with Tap(network, stages_of(network, blank), "output") as tap, in_mode(network, training=False):
            network(blank)
        channels.append([each.shape[1] for each in tap.values])
    count = min(map(len, channels))
    return ChannelDistillation(*(each[-count:] for each in channels)).to(blank.device)
