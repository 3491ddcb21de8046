"""Inner rates that are learned along the way, one for each layer's tensor."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lra.state import State

REACH = math.log(100)
"""How far log α may move from its start."""


class LearnedRates:
    """α of each parameter, moved down the gradient of the outer objective.

    Meta-SGD (Li et al. 2017, arXiv:1707.09835) and La-MAML (Gupta et al. 2020, arXiv:2007.13904) learn inner rates
    with the weights; the gradient is −⟨∇L_acq(θ), ∇L_ret(θ')⟩ of the layer, so that α grows where acquisition and
    retention agree. Learned in logarithms and by Adam, so that α stays positive and ``rate`` has no units; held
    within a factor of 100 of the start.

    Args:
        count: parameters.
        start: α to begin with, > 0.
        rate: step of log α, > 0.
    """

    def __init__(self, count: int, start: float, rate: float):
        self.start = math.log(start)
        self.log = torch.full((count,), self.start, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.log], lr=rate)

    def rates(self, share: float = 1.0) -> tuple[Tensor, ...]:
        """``share`` times α of each parameter, for an inner rule's ``lr``."""
        return (share * self.log.exp()).unbind()

    def receive(self, gradients: Sequence[Tensor], share: float = 1.0) -> None:
        """Make the ``alpha_gradient`` of a step taken with ``rates(share)`` the gradient of ``log``."""
        self.log.grad = torch.stack([*gradients]).to(self.log) * (share * self.log.detach().exp())

    def learn(self) -> None:
        """Move the rates down what was received, if anything was since the last time."""
        if self.log.grad is None:
            return
        self.optimizer.step()
        self.log.grad = None
        with torch.no_grad():
            self.log.clamp_(self.start - REACH, self.start + REACH)

    def state_dict(self) -> State:
        """Rates and Adam's moments."""
        return {"log": self.log.detach(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        with torch.no_grad():
            self.log.copy_(state["log"])
        self.optimizer.load_state_dict(state["optimizer"])
