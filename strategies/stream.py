"""The stream: every update of the sample source opens one Avalanche experience, lazily and in closed loop.

Opening an experience costs O(1) and nothing of a past one is kept: the stream is an iterable object, never a
Python generator (Avalanche memoises those), and an experience draws its samples only when asked.

Beside it, what else Avalanche is to take: test sets held in tensors, and tensors with classes as its datasets.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import CLExperience, CLStream
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lra.closed_loop import ClosedLoop
from lra.images import unit
from lra.problem import Batch, Teacher, reduced, single
from lra.synthesis.synthesizer import Synthesizer
from lra.synthesis.terms import TermValue


class SynthesisExperience(DatasetExperience):
    """What one update of the sample source makes available: a sampler of unlabelled images.

    Attributes:
        terms: what the update's loss terms were, by name.
        steps: student steps to take before the next experience opens.
    """

    def __init__(self, stream: "SynthesisStream", index: int, terms: dict[str, TermValue], steps: int):
        # Avalanche's default is an eager dataset; ours is made in `dataset`, if anybody asks.
        super().__init__(dataset=None, current_experience=index)
        self.origin_stream = stream
        self.terms = terms
        self.steps = steps
        # Shared by the shallow copies of .train(), .eval() and .logging(), so that they see one draw.
        self._drawn: dict[str, AvalancheDataset[Any]] = {}

    def draw(self, n: int) -> Batch:
        """``n`` fresh images (n, C, H, W) with the teacher's logits (n, K)."""
        stream = self.origin_stream
        with reduced(stream.precision, stream.device):
            images = single(stream.synthesizer.draw(n))
        return Batch(images, stream.teacher.label(images))

    @property
    def dataset(self) -> "AvalancheDataset[Any]":
        """A finite draw, for Avalanche's own strategies and plugins: image, teacher's logits, task.

        Its ``targets`` are the teacher's classes. As many images as the student's steps take, drawn at the first call.
        """
        if "dataset" not in self._drawn:
            images, logits, *_ = self.draw(self.steps * self.origin_stream.batch_size)
            drawn = TensorDataset(images.cpu(), logits.cpu())
            self._drawn["dataset"] = with_classes(drawn, logits.argmax(dim=1).tolist())
        return self._drawn["dataset"]


class Draws(Iterable[list[Tensor]]):
    """Minibatches (images, teacher logits, task 0) of a synthesis experience, drawn as the loop asks.

    Args:
        experience: that is open.
        size: how many images in each.
        over: whether to stop before the experience's steps are done.
    """

    def __init__(self, experience: SynthesisExperience, size: Callable[[], int], over: Callable[[], bool]):
        self.experience = experience
        self.size = size
        self.over = over

    def __len__(self) -> int:
        return self.experience.steps

    def __iter__(self) -> Iterator[list[Tensor]]:
        n = self.size()
        tasks = torch.zeros(n, dtype=torch.long)
        for _ in range(self.experience.steps):
            if self.over():
                return
            images, logits, *_ = self.experience.draw(n)
            yield [images, logits, tasks]


class SynthesisStream(ClosedLoop[SynthesisExperience], CLStream[SynthesisExperience]):
    """A lazy, closed-loop stream of experiences.

    Iterating it trains the sample source: `ClosedLoop` calls `open` for one experience after another, and each is made
    against the student as it stands then.

    Args:
        synthesizer: makes the samples.
        teacher: labels them.
        length: experiences in all.
        steps: student steps per experience.
        batch_size: images per student step.
        last_steps: student steps in the last experience, where a budget ends inside one.
        precision: of the passes of synthesis, see `lra.problem.reduced`; what is drawn is in single precision again.

    Attributes:
        student: the network that synthesis works against; a `DataFreeDistillation` strategy sets it.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        teacher: Teacher,
        length: int,
        steps: int,
        batch_size: int,
        last_steps: int | None = None,
        precision: torch.dtype = torch.float32,
    ):
        CLStream.__init__(self, "synthesis", exps_iter=(), set_stream_info=False)
        ClosedLoop.__init__(self, length)
        self.synthesizer = synthesizer
        self.teacher = teacher
        self.steps = steps
        self.batch_size = batch_size
        self.last_steps = last_steps or steps
        self.precision = precision
        self.student: nn.Module | None = None

    @property
    def device(self) -> torch.device:
        """Where samples are made."""
        return next(self.teacher.parameters()).device

    def open(self) -> SynthesisExperience:
        """Update the sample source, which opens the next experience.

        Raises:
            ValueError: if no student has been set.
        """
        if self.student is None:
            raise ValueError("the stream has no student: set stream.student, or train with DataFreeDistillation")
        with reduced(self.precision, self.device):
            terms = self.synthesizer.step(self.student)
        steps = self.last_steps if self.position == self.length - 1 else self.steps
        return SynthesisExperience(self, self.position, terms, steps)


class TestExperience(CLExperience):
    """A labelled test set held in tensors: images (n, C, H, W), bytes or floats in [0, 1], and classes (n,)."""

    __test__ = False

    def __init__(self, images: Tensor, classes: Tensor):
        super().__init__(current_experience=0, origin_stream=None)
        self.tensors = (images, classes)
        self.origin_stream = CLStream("test", exps_iter=[self], set_stream_info=False)


def no_test_stream() -> "CLStream[TestExperience]":
    """A test stream of nothing, on which metrics of probes still speak."""
    return CLStream("test", exps_iter=[], set_stream_info=False)


class Slices(Iterable[list[Tensor]]):
    """Minibatches (images in [0, 1], classes, task 0) of a test set held in tensors."""

    def __init__(self, images: Tensor, classes: Tensor, size: int):
        self.images, self.classes, self.size = images, classes, size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        for images, classes in zip(self.images.split(self.size), self.classes.split(self.size), strict=True):
            yield [unit(images), classes, torch.zeros_like(classes)]


def with_classes(data: TensorDataset, classes: Sequence[int]) -> "AvalancheDataset[Any]":
    """``data`` whose ``targets`` are ``classes``, one each, all of task 0, which items carry as their last element."""
    attributes = [
        DataAttribute(classes, "targets"),
        DataAttribute([0] * len(classes), "targets_task_labels", use_in_getitem=True),
    ]
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)
