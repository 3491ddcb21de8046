"""What goes on inside student and teacher, for losses of a student step that compare more than logits."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from lra.features import FeatureTap, Tap
from lra.preservation import untouched
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
        maps: whether stage maps are wanted.
        features: whether penultimate features are.

    Raises:
        ValueError: if the student does not have what is wanted.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        image: tuple[int, int, int],
        maps: bool = False,
        features: bool = True,
    ):
        self._teacher = teacher
        self._blank = next(student.parameters()).new_zeros(1, *image)
        self._wanted = {"features": features, "maps": maps}
        self._taps = self._tapping(student)
        self._shown = Tap(student, [student])
        for tap in [*self._taps.values(), self._shown]:
            tap.__enter__()
        self._asked: Tensor | None = None
        self._answers: dict[str, list[Tensor]] = {}

    def student_features(self, batch: Batch) -> Tensor:
        """(n, d'), with their graph.

        Raises:
            RuntimeError: if the student's latest forward pass did not begin with these images.
        """
        return self._latest("features", batch)[0]

    def student_maps(self, batch: Batch) -> list[Tensor]:
        """(n, c, h, w) of each stage, with their graph; raises as `student_features`."""
        return self._latest("maps", batch)

    def teacher_features(self, batch: Batch) -> Tensor:
        """(n, d), without a graph."""
        return self._ask(batch)["features"][0]

    def teacher_maps(self, batch: Batch) -> list[Tensor]:
        """(n, c, h, w) of each stage, without a graph."""
        return self._ask(batch)["maps"]

    def _tapping(self, network: nn.Module) -> dict[str, Tap]:
        taps: dict[str, Tap] = {}
        if self._wanted["features"]:
            taps["features"] = FeatureTap(network, self._blank.shape[1:])
        if self._wanted["maps"]:
            taps["maps"] = Tap(network, stages_of(network, self._blank), "output")
        return taps

    def _latest(self, what: str, batch: Batch) -> list[Tensor]:
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
        values = [value[:count] for value in _values(self._taps[what])]
        return [value.float() if value.dtype in half else value for value in values]

    @torch.no_grad()
    def _ask(self, batch: Batch) -> dict[str, list[Tensor]]:
        if self._asked is not batch.images:
            taps = self._tapping(self._teacher.network)
            with ExitStack() as stack:
                for tap in taps.values():
                    stack.enter_context(tap)
                self._teacher(batch.images)
            self._asked, self._answers = batch.images, {what: _values(tap) for what, tap in taps.items()}
        return self._answers


def _values(tap: Tap) -> list[Tensor]:
    return [tap.features] if isinstance(tap, FeatureTap) else tap.values


@torch.no_grad()
def feature_size(network: nn.Module, image: tuple[int, int, int]) -> int:
    """The d of the penultimate features (n, d) of a network, which is asked about black images (C, H, W)."""
    blank = next(network.parameters()).new_zeros(2, *image)
    with untouched(network), FeatureTap(network, image) as tap:
        network.eval()(blank)
    return tap.features.shape[1]
