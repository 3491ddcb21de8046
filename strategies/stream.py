"""The stream: every update of the sample source opens one Avalanche experience, lazily and in closed loop.

Opening an experience costs O(1), and nothing is kept of past ones: the stream is an iterable object, never a Python
generator (Avalanche memoises those), and an experience draws its samples only when asked.

The module also adapts other data to Avalanche: test sets held in tensors, and tensors with classes as datasets.
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
        terms: values of the update's loss terms, by name.
        steps: student steps to take before the next experience opens.
    """

    def __init__(self, stream: "SynthesisStream", index: int, terms: dict[str, TermValue], steps: int):
        # Avalanche's default is an eager dataset; ours is made in `dataset`, on demand.
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

        Its ``targets`` are the teacher's predicted classes. It has as many images as the student's steps use, drawn at
        the first access.
        """
        if "dataset" not in self._drawn:
            images, logits, *_ = self.draw(self.steps * self.origin_stream.batch_size)
            drawn = TensorDataset(images.cpu(), logits.cpu())
            self._drawn["dataset"] = with_classes(drawn, logits.argmax(dim=1).tolist())
        return self._drawn["dataset"]


class Draws(Iterable[list[Tensor]]):
    """Minibatches (images, teacher logits, task 0) of a synthesis experience, drawn as the loop asks.

    Args:
        experience: the open experience.
        size: gives the number of images per minibatch.
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

    Iterating over it trains the sample source: `ClosedLoop` calls `open` for one experience after another, and each is
    made against the student at that moment.

    Args:
        synthesizer: makes the samples.
        teacher: labels them.
        length: experiences in all.
        steps: student steps per experience.
        batch_size: images per student step.
        last_steps: student steps in the last experience, if the budget ends inside one.
        precision: of the passes of synthesis, see `lra.problem.reduced`; drawn images are in single precision again.

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
        """The device on which samples are made."""
        return next(self.teacher.parameters()).device

    def open(self) -> SynthesisExperience:
        """Update the sample source, and thus open the next experience.

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
    """An empty test stream, on which measures on probes still work."""
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
    """``data`` with ``targets`` = ``classes``, one per item, and with task label 0 as the last element of each item."""
    attributes = [
        DataAttribute(classes, "targets"),
        DataAttribute([0] * len(classes), "targets_task_labels", use_in_getitem=True),
    ]
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)
