"""The interface of the losses of a synthesis step, and how a step adds them up.

A term turns a `View` into a scalar. A positive weight always favours what the term is named after.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lra.state import State
from lra.view import Quantity, View

Weighing = Callable[[View], Tensor]
"""Gives each image of a view a weight (n,) in the mean of a per-image term."""


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
    """Whether it opposes the student; such a term is left out of a warm-up, before the student has learnt anything."""

    def __init__(self, weight: float):
        self.weight = weight
        self.notes: dict[str, Tensor] = {}
        """Further scalars to be recorded with the last value, detached, by name."""

    @abstractmethod
    def __call__(self, view: View) -> Tensor:
        """The raw scalar, to be minimised."""

    def learn(self) -> None:  # noqa: B027
        """Update the term's own parameters; called when the gradient of the whole loss has been computed."""

    def keep(self, where: Tensor | None = None) -> None:  # noqa: B027
        """Note that the images of the last value are, so far, those to be kept.

        Args:
            where: (), bool: whether they are, not yet read from the device; if false, the earlier ones stay.
        """

    def settle(self) -> None:  # noqa: B027
        """Note that the synthesis of an experience is over; only the few terms with a memory act here."""

    def state_dict(self) -> State:
        """What the term remembers between experiences; most remember nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:  # noqa: B027
        """Take up a state of `state_dict`."""


def total(terms: Sequence[Term], view: View) -> tuple[Tensor, dict[str, TermValue]]:
    """The weighted sum of all terms with non-zero weight, and their raw and weighted values and notes by name."""
    active = [term for term in terms if term.weight != 0]
    view.watching({quantity for term in active for quantity in term.needs})
    loss, values = view.images.new_zeros(()), {}
    for term in active:
        raw = term(view)
        loss = loss + term.weight * raw
        values[term.name] = TermValue(raw.detach(), term.weight * raw.detach())
        values |= {f"{term.name}_{name}": TermValue(note, torch.zeros_like(note)) for name, note in term.notes.items()}
    return loss, values
