"""What every source is: it makes one batch of synthetic images at a time and is optimised.

`Source.begin`, then `Source.images` and `Source.update` in turn, then `Source.end`. What the loss is, and which
iterate to keep, is the business of `lra.synthesis.batches`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lra.state import State
from lra.synthesis.synthesizer import Reusable

BETAS = (0.5, 0.999)
"""Adam's, in every release that optimises a generator against one batch."""


class Source(Reusable, ABC):
    """Makes one batch at a time and improves it by gradient steps.

    Attributes:
        batches: begun so far.
    """

    def __init__(self) -> None:
        self.batches = 0

    @abstractmethod
    def begin(self, labels: Tensor) -> None:
        """Start a batch of images that are to show ``labels`` (n,), or probabilities (n, K)."""

    @abstractmethod
    def images(self) -> Tensor:
        """The batch as it stands, (n, C, H, W) in [0, 1], with a graph to what is optimised."""

    @abstractmethod
    def update(self, loss: Tensor) -> None:
        """One step down the gradient of ``loss``, of the latest images."""

    def end(self) -> None:
        """The batch is finished."""

    def imagine(self, labels: Tensor) -> Tensor | None:
        """Images of ``labels`` by the generator that outlives batches, in evaluation mode; ``None`` if none does."""
        return None

    def state_dict(self) -> State:
        """What lives on from batch to batch."""
        return {"batches": self.batches}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.batches = state["batches"]


def descend(optimiser: torch.optim.Optimizer | None, loss: Tensor) -> None:
    """One step of ``optimiser`` down the gradient of ``loss``."""
    assert optimiser is not None
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
