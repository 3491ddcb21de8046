"""What every loss of a synthesis step is, and how a step adds them up.

A term turns a `View` into a scalar. A positive weight always asks for the thing the term is named after.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lra.state import State
from lra.view import Quantity, View

Weighing = Callable[[View], Tensor]
"""What each image (n,) of a view counts times in the mean of a term of single images."""


class TermValue(NamedTuple):
    """What one term contributed to a step, detached."""

    raw: Tensor
    weighted: Tensor


class Term(ABC):
    """One weighted loss of a synthesis step.

    Args:
        weight: its factor in the sum; schedules may change it between steps.
    """

    name: ClassVar[str]
    needs: frozenset[Quantity] = frozenset()
    """What the networks' passes must collect for it."""
    competitive: ClassVar[bool] = False
    """Whether it plays against the student; such a term sits out a warm-up, before the student has learnt anything."""

    def __init__(self, weight: float):
        self.weight = weight
        self.notes: dict[str, Tensor] = {}
        """Scalars worth recording beside the last value, detached, by name."""

    @abstractmethod
    def __call__(self, view: View) -> Tensor:
        """The raw scalar, to be minimised."""

    def learn(self) -> None:  # noqa: B027
        """Update what the term learns itself: the gradient of the whole loss has just been computed."""

    def keep(self, where: Tensor | None = None) -> None:  # noqa: B027
        """Take note that the images of the last value are those to be kept, as it stands.

        Args:
            where: (), bool: whether they are, which nobody has looked at yet; those before them, if they are not.
        """

    def settle(self) -> None:  # noqa: B027
        """Take note that the synthesis of an experience is over; the few terms with a memory do something here."""

    def state_dict(self) -> State:
        """What the term remembers between experiences; most remember nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:  # noqa: B027
        """Take up a state of `state_dict`."""


def total(terms: Sequence[Term], view: View) -> tuple[Tensor, dict[str, TermValue]]:
    """The weighted sum of all terms with a weight, and each one's raw and weighted value and notes by name."""
    active = [term for term in terms if term.weight != 0]
    view.watching({quantity for term in active for quantity in term.needs})
    loss, values = view.images.new_zeros(()), {}
    for term in active:
        raw = term(view)
        loss = loss + term.weight * raw
        values[term.name] = TermValue(raw.detach(), term.weight * raw.detach())
        values |= {f"{term.name}_{name}": TermValue(note, torch.zeros_like(note)) for name, note in term.notes.items()}
    return loss, values
