"""One synthetic batch as the losses of a synthesis step see it."""

from contextlib import ExitStack
from functools import cached_property

from torch import Tensor, nn

from lra.features import BatchNormStatistics, Tap, penultimate
from lra.preservation import frozen, in_mode
from lra.teacher import Teacher


class View:
    """Images beside what teacher and student make of them, each computed at most once and only when asked.

    Gradients flow to ``images`` through teacher and student; neither network's weights get any, and hooks
    exist only while a network runs.

    Args:
        images: (n, C, H, W) in [0, 1], usually with a graph back to a generator.
        teacher: the frozen oracle.
        student: the learner; ``None`` where a loss must not need it.
        labels: (n,) classes the images were asked to be, if the source conditions on any.
        student_mode: whether the student answers with running ("eval") or batch ("train") statistics.
    """

    def __init__(
        self,
        images: Tensor,
        teacher: Teacher,
        student: nn.Module | None = None,
        labels: Tensor | None = None,
        student_mode: str = "eval",
    ):
        self.images = images
        self.teacher = teacher
        self.labels = labels
        self._student = student
        self._student_mode = student_mode
        self._wanted: set[str] = set()

    def watching(self, quantities: set[str]) -> "View":
        """Say beforehand which of ``features`` and ``batchnorm`` the teacher's pass has to collect."""
        self._wanted |= quantities
        return self

    @cached_property
    def _teacher_pass(self) -> dict[str, object]:
        with ExitStack() as stack:
            taps: dict[str, object] = {}
            if "features" in self._wanted:
                taps["features"] = stack.enter_context(Tap(self.teacher, [penultimate(self.teacher)]))
            if "batchnorm" in self._wanted:
                taps["batchnorm"] = stack.enter_context(BatchNormStatistics(self.teacher))
            return {"logits": self.teacher(self.images)} | taps

    @property
    def teacher_logits(self) -> Tensor:
        """(n, K)."""
        logits = self._teacher_pass["logits"]
        assert isinstance(logits, Tensor)
        return logits

    @property
    def teacher_features(self) -> Tensor:
        """(n, d): the input of the teacher's last linear layer."""
        tap = self._teacher_pass["features"]
        assert isinstance(tap, Tap)
        return tap.values[0]

    @cached_property
    def predicted(self) -> Tensor:
        """(n,): the teacher's argmax, without gradient."""
        return self.teacher_logits.detach().argmax(dim=1)

    @cached_property
    def targets(self) -> Tensor:
        """(n,): the labels asked for, or what the teacher sees where none were."""
        return self.predicted if self.labels is None else self.labels

    @cached_property
    def student_logits(self) -> Tensor:
        """(n, K).

        Raises:
            ValueError: if the view has no student.
        """
        if self._student is None:
            raise ValueError("this view has no student: an adversarial term needs one")
        with frozen(self._student), in_mode(self._student, self._student_mode == "train"):
            return self._student(self.images)
