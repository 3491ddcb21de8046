"""The contract of everything that makes samples, and of what it leaves to a later task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from lra.networks.generators import Rescale
from lra.networks.weights import load_weights
from lra.state import Owner, State
from lra.synthesis.terms import Term, TermValue


class Reusable(Owner):
    """Makes samples with a generator that outlives an experience, or with none."""

    def generator_to_reuse(self) -> nn.Module | None:
        """The generator as it is to be saved for a later task; ``None`` if none outlives an experience."""
        return None

    @property
    def awaits_generator(self) -> bool:
        """Whether it cannot begin without an earlier task's generator, see `begin_with`."""
        return False

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the weights of an earlier task's `generator_to_reuse`.

        Raises:
            ValueError: if they do not fit, or there is nothing that could take them.
        """
        generator = self.generator_to_reuse()
        if generator is None:
            raise ValueError("it has no generator that outlives a batch, so that none can be carried over")
        load_reused(generator, weights)


def load_reused(generator: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load an earlier task's weights; the scale that images are brought to stays that of this task's data.

    Raises:
        ValueError: if names or shapes differ.
    """
    scales = [(m, m.mean.clone(), m.std.clone()) for m in generator.modules() if isinstance(m, Rescale)]
    load_weights(generator, weights)
    for module, mean, std in scales:
        module.mean.copy_(mean)
        module.std.copy_(std)


class FiniteBatch(NamedTuple):
    """The images of an experience that has only so many."""

    images: Tensor
    """(n, C, H, W) uint8."""
    labels: Tensor
    """(n,) int64: the classes they were asked to be."""


class Sampler(NamedTuple):
    """How a generator that outlives experiences makes what the student sees."""

    generator: nn.Module
    """The generator itself, as it is learning."""
    draw: Callable[[nn.Module, int], Tensor]
    """So many images (n, C, H, W) of a copy of it at other weights, as `Synthesizer.draw` makes them of itself.

    Without a graph. It leaves no trace in the copy's buffers, nor in the source but for random numbers.
    """


class Synthesizer(Reusable, ABC):
    """Owns a source of samples and how it is updated; one `step` opens one experience.

    Args:
        terms: what an update minimises.

    Attributes:
        divisible: whether each of several processes can make a part of every batch, with gradients averaged.
        generator_steps: updates of the source's parameters so far.
        images_generated: images made so far, for synthesis and for the student.
    """

    divisible: ClassVar[bool] = False

    def __init__(self, terms: Sequence[Term] = ()) -> None:
        self.terms = list(terms)
        self.generator_steps = 0
        self.images_generated = 0

    @abstractmethod
    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """Update the source against teacher and current student; returns the last update's terms by name."""

    @abstractmethod
    def draw(self, n: int) -> Tensor:
        """``n`` images (n, C, H, W) in [0, 1] of the experience that is open, without a graph."""

    @abstractmethod
    def peek(self, n: int) -> Tensor:
        """Like `draw`, but leaves no trace: not in random states, nor buffers, nor counters."""

    def imagine(self, n: int) -> Tensor | None:
        """``n`` images (n, C, H, W) in [0, 1] of the generator that outlives experiences, see `generator_to_reuse`.

        In evaluation mode where that is how the student sees it, without a graph; ``None`` if there is no such one.
        """
        return None

    def sampler(self) -> Sampler | None:
        """How its generator draws; ``None`` if not all that the student sees comes from one that is never renewed."""
        return None

    def batch(self) -> FiniteBatch | None:
        """All there is of the open experience, if it is a finite batch; ``None`` from a source without end."""
        return None

    def shown(self, images: Tensor) -> Tensor:
        """Float images in [0, 1] as the student is to see stored ones (n, C, H, W) uint8; augmented, maybe.

        A source that shows each image ``views`` times returns (views·n, C, H, W).
        """
        return images.float() / 255

    @property
    def views(self) -> int:
        """How often `shown` shows each image."""
        return 1

    def updates(self, index: int) -> int:
        """How many updates `step` makes to open the experience ``index``, from 0; for telling how long it takes."""
        return 1

    @abstractmethod
    def state_dict(self) -> State:
        """All that a resumed run needs to continue identically, but for the global random states.

        Here what terms remember, and counters; joined by a subclass to its own.
        """
        return {"terms": [term.state_dict() for term in self.terms], **self.counters()}

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`; called by a subclass, which takes up its own."""
        for term, saved in zip(self.terms, state["terms"], strict=True):
            term.load_state_dict(saved)
        self.generator_steps = state["generator_steps"]
        self.images_generated = state["images_generated"]

    def counters(self) -> dict[str, int]:
        """What was updated and made so far, by name."""
        return {"generator_steps": self.generator_steps, "images_generated": self.images_generated}
