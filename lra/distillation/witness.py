"""What goes on inside student and teacher, for losses of a student step that compare more than logits."""

import torch
from torch import Tensor, nn

from lra.features import Tap, penultimate, pooled
from lra.problem import Batch
from lra.synthesis.view import stages_of
from lra.teacher import Teacher


class Witness:
    """Features and stage maps of student and teacher on the batch that an objective is asked about.

    The student is tapped for as long as the witness lives: its values are those of its latest forward pass, at
    whatever weights, those of a look-ahead too; of that pass the batch may be the first part. (The meta engine
    ``higher`` refuses a student with hooks and says so; the lean one is right.) The teacher is asked again, without a
    graph and at most once for the same images, and counts that query.

    Args:
        student: the learner.
        teacher: the oracle.
        image: (channels, height, width).
        maps: whether stage maps are wanted too.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, image: tuple[int, int, int], maps: bool = False):
        self._teacher = teacher
        self._blank = next(student.parameters()).new_zeros(1, *image)
        self._taps = [Tap(student, [penultimate(student)])]
        if maps:
            self._taps.append(Tap(student, stages_of(student, self._blank), "output"))
        self._shown = Tap(student, [student])
        for tap in [*self._taps, self._shown]:
            tap.__enter__()
        self._asked: Tensor | None = None
        self._answers: list[list[Tensor]] = []

    def student_features(self, batch: Batch) -> Tensor:
        """(n, d'), with their graph.

        Raises:
            RuntimeError: if the student's latest forward pass did not begin with these images.
        """
        return pooled(self._latest(0, batch)[0])

    def student_maps(self, batch: Batch) -> list[Tensor]:
        """(n, c, h, w) of each stage, with their graph; raises as `student_features`."""
        return self._latest(1, batch)

    def teacher_features(self, batch: Batch) -> Tensor:
        """(n, d), without a graph."""
        return pooled(self._ask(batch)[0][0])

    def teacher_maps(self, batch: Batch) -> list[Tensor]:
        """(n, c, h, w) of each stage, without a graph."""
        return self._ask(batch)[1]

    def _latest(self, index: int, batch: Batch) -> list[Tensor]:
        (shown,), count = self._shown.values, len(batch.images)
        # NaN equal to itself, so that images that are broken end where divergence is looked for.
        same = shown is batch.images or (
            len(shown) >= count and torch.allclose(shown[:count], batch.images, rtol=0, atol=0, equal_nan=True)
        )
        if not same:
            raise RuntimeError(
                f"the objective was asked about {count} images and the student's latest forward pass, of {len(shown)}, "
                "did not begin with them: call it right after the forward pass it is about"
            )
        # A pass in half precision is compared in single, as its logits are.
        half = (torch.bfloat16, torch.float16)
        values = [value[:count] for value in self._taps[index].values]
        return [value.float() if value.dtype in half else value for value in values]

    @torch.no_grad()
    def _ask(self, batch: Batch) -> list[list[Tensor]]:
        if self._asked is not batch.images:
            network = self._teacher.network
            taps = [Tap(network, [penultimate(network)])]
            if len(self._taps) > 1:
                taps.append(Tap(network, stages_of(network, self._blank), "output"))
            for tap in taps:
                tap.__enter__()
            try:
                self._teacher(batch.images)
            finally:
                for tap in taps:
                    tap.__exit__()
            self._asked, self._answers = batch.images, [tap.values for tap in taps]
        return self._answers


def feature_size(network: nn.Module) -> int:
    """The d of a network's penultimate features (n, d)."""
    last = penultimate(network)
    size = last.in_features if isinstance(last, nn.Linear) else last.in_channels
    assert isinstance(size, int)
    return size
