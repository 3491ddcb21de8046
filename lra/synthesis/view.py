"""One synthetic batch as the losses of a synthesis step see it."""

from collections.abc import Set
from contextlib import ExitStack
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from lra.anatomy import stages
from lra.features import BatchNormStatistics, FeatureTap, LayerStatistics, Tap
from lra.preservation import frozen, in_mode
from lra.teacher import Teacher

Quantity = Literal["features", "maps", "batchnorm", "student_features", "student_maps"]
"""What a view collects beside logits, if it is told beforehand."""

_STAGES: "WeakKeyDictionary[nn.Module, list[nn.Module]]" = WeakKeyDictionary()


def stages_of(network: nn.Module, images: Tensor) -> list[nn.Module]:
    """`lra.anatomy.stages` for images of this shape, looked for once per network."""
    if network not in _STAGES:
        channels, height, width = images.shape[1:]
        _STAGES[network] = stages(network, (channels, height, width))
    return _STAGES[network]


def _teacher_taps(wanted: Set[str], network: nn.Module, images: Tensor) -> dict[str, Tap]:
    taps: dict[str, Tap] = {}
    if "features" in wanted:
        taps["features"] = FeatureTap(network, images.shape[1:])
    if "maps" in wanted:
        taps["maps"] = Tap(network, stages_of(network, images), "output")
    if "batchnorm" in wanted:
        taps["batchnorm"] = BatchNormStatistics(network, images.shape[1:])
    return taps


def _student_taps(wanted: Set[str], network: nn.Module, images: Tensor) -> dict[str, Tap]:
    taps: dict[str, Tap] = {}
    if "student_features" in wanted:
        taps["student_features"] = FeatureTap(network, images.shape[1:])
    if "student_maps" in wanted:
        taps["student_maps"] = Tap(network, stages_of(network, images), "output")
    return taps


def require(wanted: Set[Quantity], teacher: Teacher, student: nn.Module, image: tuple[int, int, int]) -> None:
    """Look for the quantities that views will be asked for, before any time is spent.

    Raises:
        ValueError: for the first that ``teacher`` or ``student``, networks for images (C, H, W), lacks.
    """
    blank = next(student.parameters()).new_zeros(1, *image)
    _teacher_taps(wanted, teacher.network, blank)
    _student_taps(wanted, student, blank)


class View:
    """Images beside what teacher and student make of them, each computed at most once and only when asked.

    Gradients flow to ``images`` through teacher and student; neither network's weights get any, and hooks
    exist only while a network runs. Features, maps and statistics have to be announced with `watching` before
    the first look at a network; `lra.synthesis.terms.total` does so for its terms.

    Args:
        images: (n, C, H, W) in [0, 1], usually with a graph back to a generator; augmented ones, if the
            networks are to see those.
        teacher: the frozen oracle.
        student: the learner; ``None`` where a loss must not need it.
        labels: (n,) classes the images were asked to be, or (n, K) probabilities, if the source conditions on any.
        student_mode: whether the student answers with running ("eval") or batch ("train") statistics.
        plain: the images before augmentation, which priors on images look at; ``images`` if not given.
    """

    def __init__(
        self,
        images: Tensor,
        teacher: Teacher,
        student: nn.Module | None = None,
        labels: Tensor | None = None,
        student_mode: str = "eval",
        plain: Tensor | None = None,
    ):
        self.images = images
        self.plain = images if plain is None else plain
        self.teacher = teacher
        self.labels = labels
        self._student = student
        self._student_mode = student_mode
        self._wanted: set[str] = set()

    def watching(self, quantities: set[Quantity]) -> "View":
        """Say beforehand which quantities the networks' passes have to collect."""
        self._wanted |= quantities
        return self

    def elsewhere(self, images: Tensor) -> "View":
        """The same networks, in the same modes, on other images."""
        return View(images, self.teacher, self._student, student_mode=self._student_mode)

    @cached_property
    def _teacher_pass(self) -> tuple[Tensor, dict[str, Tap]]:
        taps = _teacher_taps(self._wanted, self.teacher.network, self.images)
        with ExitStack() as stack:
            for tap in taps.values():
                stack.enter_context(tap)
            return self.teacher(self.images), taps

    @cached_property
    def _student_pass(self) -> tuple[Tensor, dict[str, Tap]]:
        if self._student is None:
            raise ValueError("this view has no student: an adversarial term needs one")
        taps = _student_taps(self._wanted, self._student, self.images)
        with ExitStack() as stack:
            for tap in taps.values():
                stack.enter_context(tap)
            stack.enter_context(frozen(self._student))
            stack.enter_context(in_mode(self._student, self._student_mode == "train"))
            return self._student(self.images), taps

    @property
    def teacher_logits(self) -> Tensor:
        """(n, K)."""
        return self._teacher_pass[0]

    @property
    def teacher_features(self) -> Tensor:
        """(n, d): what the teacher's classifier takes in, see `lra.anatomy.penultimate`. Needs "features"."""
        tap = self._teacher_pass[1]["features"]
        assert isinstance(tap, FeatureTap)
        return tap.features

    @property
    def teacher_maps(self) -> list[Tensor]:
        """(n, c, h, w) of each stage, see `lra.anatomy.stages`. Needs "maps"."""
        return self._teacher_pass[1]["maps"].values

    @cached_property
    def statistics(self) -> list[LayerStatistics]:
        """Batch and running statistics of each BatchNorm layer of the teacher. Needs "batchnorm"."""
        tap = self._teacher_pass[1]["batchnorm"]
        assert isinstance(tap, BatchNormStatistics)
        return tap.layers

    @property
    def batchnorm_inputs(self) -> list[Tensor]:
        """(n, c, h, w) that each BatchNorm layer of the teacher took in. Needs "batchnorm"."""
        return self._teacher_pass[1]["batchnorm"].values

    @cached_property
    def predicted(self) -> Tensor:
        """(n,): the teacher's argmax, without gradient."""
        return self.teacher_logits.detach().argmax(dim=1)

    @cached_property
    def targets(self) -> Tensor:
        """(n,) or (n, K): the labels asked for, or what the teacher sees where none were."""
        return self.predicted if self.labels is None else self.labels

    @property
    def student_logits(self) -> Tensor:
        """(n, K).

        Raises:
            ValueError: if the view has no student.
        """
        return self._student_pass[0]

    @property
    def student_features(self) -> Tensor:
        """(n, d'): what the student's classifier takes in. Needs "student_features"."""
        tap = self._student_pass[1]["student_features"]
        assert isinstance(tap, FeatureTap)
        return tap.features

    @property
    def student_maps(self) -> list[Tensor]:
        """(n, c, h, w) of each stage of the student. Needs "student_maps"."""
        return self._student_pass[1]["student_maps"].values
