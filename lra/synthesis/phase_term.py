"""A generator that dwells on a few classes at a time: non-stationarity on purpose, to study forgetting."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.state import State
from lra.synthesis.terms import Term
from lra.synthesis.view import View


class ClassPhases(Term):
    """Minus the log of the mass that the teacher puts on the classes of the present phase.

    Classes 0..K-1 take turns, ``per_phase`` at a time, cyclically, for ``length`` experiences each. Not part of
    any published method: it makes an ordinary method's stream as non-stationary as a class-incremental one.

    Args:
        weight: factor in the sum.
        classes: K.
        per_phase: classes per phase, 1 ≤ per_phase ≤ K.
        length: experiences per phase, ≥ 1.

    Raises:
        ValueError: if ``per_phase`` or ``length`` is out of range.
    """

    name = "phase"

    def __init__(self, weight: float, classes: int, per_phase: int, length: int):
        super().__init__(weight)
        if not (1 <= per_phase <= classes and length >= 1):
            raise ValueError(
                f"phases of {per_phase} of {classes} classes over {length} experiences: give at least 1 each"
            )
        self.classes = classes
        self.per_phase = per_phase
        self.length = length
        self.experience = 0

    def present(self) -> Tensor:
        """(per_phase,) the classes of the present phase."""
        first = self.experience // self.length * self.per_phase
        return torch.arange(first, first + self.per_phase) % self.classes

    def __call__(self, view: View) -> Tensor:
        """≥ 0, in nats."""
        log_p = F.log_softmax(view.teacher_logits, dim=1)
        return -log_p[:, self.present().to(log_p.device)].logsumexp(dim=1).mean()

    def settle(self) -> None:
        """Another experience is open."""
        self.experience += 1

    def state_dict(self) -> State:
        """The experience counted to."""
        return {"experience": self.experience}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.experience = state["experience"]
