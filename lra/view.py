"""One batch as losses see it: outputs and features of teacher and student, collected in the forward pass itself.

`View` is for the images that synthesis makes, `StudentView` for those from which a student step learns.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from functools import cached_property
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from lra.anatomy import stages
from lra.features import BatchNormStatistics, FeatureTap, LayerStatistics, Tap
from lra.problem import Batch, Teacher, single
from lra.state import frozen, in_mode

Quantity = Literal["features", "maps", "batchnorm", "student_features", "student_maps"]
"""What a view can collect besides logits, if requested beforehand."""


def require(wanted: Set[Quantity], teacher: Teacher, student: nn.Module, image: tuple[int, int, int]) -> None:
    """Check that views can provide the required quantities, before any time is spent.

    Raises:
        ValueError: for the first that ``teacher`` or ``student``, networks for images (C, H, W), lacks.
    """
    _taps("", wanted, teacher.network, image)
    _taps("student_", wanted, student, image)


def _taps(whose: Literal["", "student_"], wanted: Set[str], network: nn.Module, image: Sequence[int]) -> dict[str, Tap]:
    """Taps on a network for images (C, H, W), one per requested quantity; not open yet."""
    taps: dict[str, Tap] = {}
    if f"{whose}features" in wanted:
        taps["features"] = FeatureTap(network, image)
    if f"{whose}maps" in wanted:
        taps["maps"] = Tap(network, stages(network, image), "output")
    if f"{whose}batchnorm" in wanted:
        taps["batchnorm"] = BatchNormStatistics(network, image)
    return taps


class _Pass(NamedTuple):
    """A completed forward pass."""

    logits: Tensor
    taps: Mapping[str, Tap]


def _passed(forward: Callable[[Tensor], Tensor], images: Tensor, taps: Mapping[str, Tap]) -> _Pass:
    """Make a forward pass with ``taps`` open."""
    with ExitStack() as stack:
        for tap in taps.values():
            stack.enter_context(tap)
        return _Pass(single(forward(images)), taps)


class View:
    """Images with the outputs of teacher and student for them, each computed at most once and only on demand.

    Gradients flow to ``images`` through teacher and student; neither network's weights get any, and hooks exist only
    while a network runs. All values are in single precision, whatever the precision of the passes. Features, maps and
    statistics have to be requested with `watching` before a network is first used; `lra.synthesis.terms.total` does so
    for its terms.

    Args:
        images: (n, C, H, W) in [0, 1], usually with a graph back to a generator; augmented, if the networks are to see
            augmented images.
        teacher: the frozen oracle.
        student: the learner; ``None`` where no loss may need it.
        labels: (n,) target classes, or (n, K) probabilities, if the source has any.
        student_mode: whether the student uses running ("eval") or batch ("train") statistics.
        plain: the images before augmentation, for priors on images; ``images`` if not given.
        generator_maps: (n, c, h, w) each, inside the generator that made the images, if it exposes any.
    """

    def __init__(
        self,
        images: Tensor,
        teacher: Teacher | None,
        student: nn.Module | None = None,
        labels: Tensor | None = None,
        student_mode: str = "eval",
        plain: Tensor | None = None,
        generator_maps: Sequence[Tensor] = (),
    ):
        self.images = single(images)
        self.plain = self.images if plain is None else single(plain)
        self.generator_maps = [single(maps) for maps in generator_maps]
        self.labels = labels
        self._teacher = teacher
        self._student = student
        self._student_mode = student_mode
        self._wanted: set[str] = set()

    def watching(self, quantities: Set[Quantity]) -> Self:
        """Request, before the passes, the quantities that they have to collect."""
        self._wanted |= quantities
        return self

    def elsewhere(self, images: Tensor) -> "View":
        """A view of other images by the same networks, in the same modes."""
        return View(images, self.teacher, self._student, student_mode=self._student_mode)

    @property
    def teacher(self) -> Teacher:
        """The oracle itself.

        Raises:
            ValueError: if the view has none.
        """
        if self._teacher is None:
            raise ValueError("a loss compares with more of the teacher than its logits: give the objective the teacher")
        return self._teacher

    @property
    def student(self) -> nn.Module:
        """The learner itself.

        Raises:
            ValueError: if the view has none.
        """
        if self._student is None:
            raise ValueError("this view has no student: an adversarial term needs one")
        return self._student

    @cached_property
    def _teacher_pass(self) -> _Pass:
        return _passed(self.teacher, self.images, _taps("", self._wanted, self.teacher.network, self.images.shape[1:]))

    @cached_property
    def _student_pass(self) -> _Pass:
        taps = _taps("student_", self._wanted, self.student, self.images.shape[1:])
        with frozen(self.student), in_mode(self.student, self._student_mode == "train"):
            return _passed(self.student, self.images, taps)

    @property
    def teacher_logits(self) -> Tensor:
        """(n, K)."""
        return self._teacher_pass.logits

    @property
    def teacher_features(self) -> Tensor:
        """(n, d): input of the teacher's classifier, see `lra.anatomy.penultimate`. Needs "features"."""
        return _features(self._teacher_pass)

    @property
    def teacher_maps(self) -> list[Tensor]:
        """(n, c, h, w) of each stage, see `lra.anatomy.stages`. Needs "maps"."""
        return [single(maps) for maps in self._teacher_pass.taps["maps"].values]

    @cached_property
    def statistics(self) -> list[LayerStatistics]:
        """Batch and running statistics of each BatchNorm layer of the teacher. Needs "batchnorm"."""
        tap = self._teacher_pass.taps["batchnorm"]
        assert isinstance(tap, BatchNormStatistics)
        return tap.layers

    @property
    def batchnorm_inputs(self) -> list[Tensor]:
        """(n, c, h, w): input of each BatchNorm layer of the teacher. Needs "batchnorm"."""
        return self._teacher_pass.taps["batchnorm"].values

    @cached_property
    def predicted(self) -> Tensor:
        """(n,): the teacher's argmax, without gradient."""
        return self.teacher_logits.detach().argmax(dim=1)

    @cached_property
    def targets(self) -> Tensor:
        """(n,) or (n, K): the target labels, or the teacher's predictions if there are none."""
        return self.predicted if self.labels is None else self.labels

    @cached_property
    def student_logits(self) -> Tensor:
        """(n, K).

        Raises:
            ValueError: if the view has no student.
        """
        return self._student_pass.logits

    @property
    def student_features(self) -> Tensor:
        """(n, d'): input of the student's classifier. Needs "student_features"."""
        return _features(self._student_pass)

    @property
    def student_maps(self) -> list[Tensor]:
        """(n, c, h, w) of each stage of the student. Needs "student_maps"."""
        return [single(maps) for maps in self._student_pass.taps["maps"].values]


class StudentView(View):
    """A batch, with the teacher's logits, from which the student learns: gradients flow to the student's weights.

    The teacher is queried again only if a loss needs its features or maps, without a graph and at most once, and this
    counts as a query.

    Args:
        batch: images with the teacher's answers.
        student: the learner, in its current mode.
        teacher: for its features and maps; ``None`` where no loss needs them.
        forward: images (n, C, H, W) -> logits (n, K), the pass to make in place of the student's own: with other
            weights, in another precision, or with further images after the batch's.
        runs: the network that runs in that pass, if it is not ``student`` itself but a copy of it.
    """

    def __init__(
        self,
        batch: Batch,
        student: nn.Module,
        teacher: Teacher | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
        runs: nn.Module | None = None,
    ):
        super().__init__(batch.images, teacher, student, batch.labels)
        self.batch = batch
        self._forward = forward or student
        self._runs = runs or student

    @property
    def teacher_logits(self) -> Tensor:
        """(n, K), those of the batch."""
        return self.batch.logits

    @cached_property
    def _teacher_pass(self) -> _Pass:
        with torch.no_grad():
            return super()._teacher_pass

    @cached_property
    def _student_pass(self) -> _Pass:
        taps = _taps("student_", self._wanted, self.student, self.images.shape[1:])
        return _passed(self._forward, self.images, {name: tap.of(self._runs) for name, tap in taps.items()})

    @property
    def student_features(self) -> Tensor:
        """(n, d'). Needs "student_features"."""
        return super().student_features[: len(self.images)]

    @property
    def student_maps(self) -> list[Tensor]:
        """(n, c, h, w) of each stage. Needs "student_maps"."""
        return [maps[: len(self.images)] for maps in super().student_maps]


def _features(made: _Pass) -> Tensor:
    tap = made.taps["features"]
    assert isinstance(tap, FeatureTap)
    return single(tap.features)
