"""RGAL's triplet term for synthesis; it can be added to any method (`lra.synthesis.options.TripletOptions`)."""

from torch import Tensor

from lra.relations import TripletSampler, triplet_loss
from lra.synthesis.terms import Term
from lra.synthesis.view import View


class Triplet(Term):
    """To the student, push images of one class apart and pull different classes together (RGAL, IJCV 2024).

    Whom to compare is decided by the teacher: its classes are the labels, its logits the distances. The release never
    swaps, so that synthesis does the student's work instead of opposing it: ``swap=False``.

    Args:
        weight: factor in the sum.
        sampler: of negatives; records how often its window was empty as ``triplet_fallback``.
        margin: of the hinge.
        swap: oppose the student.
        start: the first of the student's stages to compare, from 0; the last stage where there are fewer.
    """

    name = "triplet"
    needs = frozenset({"student_maps"})
    competitive = True

    def __init__(self, weight: float, sampler: TripletSampler, margin: float = 0.2, swap: bool = True, start: int = 2):
        super().__init__(weight)
        self.sampler = sampler
        self.margin = margin
        self.swap = swap
        self.start = start

    def __call__(self, view: View) -> Tensor:
        """≥ 0; 0 for batches without two images of one class, or of one class only."""
        triplets = self.sampler(view.teacher_logits.detach(), view.predicted)
        self.notes = {"fallback": triplets.fallback}
        maps = view.student_maps
        return triplet_loss(maps[self.start :] or maps[-1:], triplets, self.margin, self.swap)
