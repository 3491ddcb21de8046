"""The interface of everything that makes samples, and of what it leaves to a later task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from lra.networks.generators import Rescale
from lra.networks.weights import load_weights
from lra.state import Owner, State
from lra.synthesis.terms import Term, TermValue


class Reusable(Owner):
    """Makes samples with a generator that persists across experiences, or with none."""

    def generator_to_reuse(self) -> nn.Module | None:
        """The generator to be saved for a later task; ``None`` if none persists across experiences."""
        return None

    @property
    def awaits_generator(self) -> bool:
        """Whether it cannot begin without an earlier task's generator, see `begin_with`."""
        return False

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the weights of an earlier task's `generator_to_reuse`.

        Raises:
            ValueError: if they do not fit, or there is no generator for them.
        """
        generator = self.generator_to_reuse()
        if generator is None:
            raise ValueError("it has no generator that outlives a batch, so that none can be carried over")
        load_reused(generator, weights)


def load_reused(generator: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load an earlier task's weights; images are still scaled for this task's data.

    Raises:
        ValueError: if names or shapes differ.
    """
    scales = [(m, m.mean.clone(), m.std.clone()) for m in generator.modules() if isinstance(m, Rescale)]
    load_weights(generator, weights)
    for module, mean, std in scales:
        module.mean.copy_(mean)
        module.std.copy_(std)


class FiniteBatch(NamedTuple):
    """The images of an experience with a finite number of them."""

    images: Tensor
    """(n, C, H, W) uint8."""
    labels: Tensor
    """(n,) int64: their target classes."""


class Sampler(NamedTuple):
    """How a generator that persists across experiences makes what the student sees."""

    generator: nn.Module
    """The generator itself, which goes on learning."""
    draw: Callable[[nn.Module, int], Tensor]
    """Draws n images (n, C, H, W) from a copy of it with other weights, as `Synthesizer.draw` does from itself.

    Without a graph. It does not change the copy's buffers, nor the source, except that it uses random numbers.
    """


class Synthesizer(Reusable, ABC):
    """Owns a source of samples and updates it; one `step` opens one experience.

    Args:
        terms: the losses that an update minimises.

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
        """``n`` images (n, C, H, W) in [0, 1] of the current experience, without a graph."""

    @abstractmethod
    def peek(self, n: int) -> Tensor:
        """Like `draw`, but without side effects on random states, buffers or counters."""

    def imagine(self, n: int) -> Tensor | None:
        """``n`` images (n, C, H, W) in [0, 1] of the persistent generator, see `generator_to_reuse`.

        In evaluation mode where the student sees it in that mode, without a graph; ``None`` without such a generator.
        """
        return None

    def sampler(self) -> Sampler | None:
        """How its generator draws; ``None`` unless everything the student sees comes from one that is never renewed."""
        return None

    def batch(self) -> FiniteBatch | None:
        """The whole current experience, if it is a finite batch; ``None`` from an unlimited source."""
        return None

    def shown(self, images: Tensor) -> Tensor:
        """Stored images (n, C, H, W) uint8 as the student is to see them: floats in [0, 1], possibly augmented.

        A source that shows each image ``views`` times returns (views·n, C, H, W).
        """
        return images.float() / 255

    @property
    def views(self) -> int:
        """How many views of each image `shown` returns."""
        return 1

    def updates(self, index: int) -> int:
        """How many updates `step` makes to open experience ``index``, counted from 0; for estimates of time."""
        return 1

    @abstractmethod
    def state_dict(self) -> State:
        """All that a resumed run needs to continue identically, except the global random states.

        Here the state of terms, and counters; subclasses add their own.
        """
        return {"terms": [term.state_dict() for term in self.terms], **self.counters()}

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Restore a state from `state_dict`; subclasses call it and restore their own."""
        for term, saved in zip(self.terms, state["terms"], strict=True):
            term.load_state_dict(saved)
        self.generator_steps = state["generator_steps"]
        self.images_generated = state["images_generated"]

    def counters(self) -> dict[str, int]:
        """How many updates and images were made so far, by name."""
        return {"generator_steps": self.generator_steps, "images_generated": self.images_generated}
