"""Successive steps that look ahead: α, and how it is learned on the way."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lra.meta.checks import check_student
from lra.meta.engines import trainable
from lra.meta.inner import INNER, Average, Rate
from lra.meta.lookahead import LookAhead, Loss, MetaStep
from lra.meta.options import LookAheadOptions
from lra.state import State

REACH = math.log(100)
"""How far log α may move from its start."""


class LearnedRates:
    """α of each parameter, learned by gradient descent on the outer objective.

    Meta-SGD (Li et al. 2017, arXiv:1707.09835) and La-MAML (Gupta et al. 2020, arXiv:2007.13904) learn inner rates with
    the weights; the gradient is −⟨∇L_acq(θ), ∇L_ret(θ')⟩ of the layer, so that α grows where acquisition and retention
    agree. α is learned as a logarithm, by Adam, so that it stays positive and ``rate`` has no units; it stays within a
    factor of 100 of its start.

    Args:
        count: number of parameters.
        start: initial α, > 0.
        rate: step size for log α, > 0.
        device: that of the parameters, so that no step waits for a transfer to a GPU.
    """

    def __init__(self, count: int, start: float, rate: float, device: torch.device | None = None):
        self.start = math.log(start)
        self.log = torch.full((count,), self.start, device=device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.log], lr=rate)

    def rates(self, share: float = 1.0) -> tuple[Tensor, ...]:
        """``share`` times the α of each parameter, for an inner rule: scalars, without a graph."""
        return (share * self.log.detach().exp()).unbind()

    def receive(self, gradients: Sequence[Tensor], share: float = 1.0) -> None:
        """Set the gradient of ``log`` from the ``alpha_gradient`` of a step taken with ``rates(share)``."""
        self.log.grad = torch.stack([*gradients]).to(self.log) * (share * self.log.detach().exp())

    def learn(self) -> None:
        """Update the rates by the gradient received, if there was one since the last call."""
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


class LookAheadStep:
    """Successive steps that look ahead, with the rates α that they learn on the way.

    Args:
        options: α and how the gradient is computed.
        updates_statistics: whether a step's passes update the student's running statistics, as ``batchnorm`` says;
            otherwise some other pass of the caller's does.
        at_once: see `LookAhead`.

    Attributes:
        learned: α of each trainable parameter, from the first step on, if they are learned.
        average: applied to ∇L_acq before the inner step; set in a run on several processes.
    """

    def __init__(self, options: LookAheadOptions | None = None, updates_statistics: bool = True, at_once: bool = True):
        self.options = options or LookAheadOptions()
        self.updates_statistics = updates_statistics
        self.at_once = at_once
        self.learned: LearnedRates | None = None
        self.average: Average | None = None

    def rates(self, student: nn.Module) -> dict[str, float]:
        """α of each trainable parameter of ``student``, by name; empty if they are not learned, or not yet."""
        if self.learned is None:
            return {}
        names = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
        return dict(zip(names, torch.stack([*self.learned.rates()]).tolist(), strict=True))

    def __call__(
        self,
        student: nn.Module,
        acquisition: Loss,
        retention: Loss,
        *,
        weight: float = 1.0,
        share: float = 1.0,
        student_lr: float | None = None,
        curvature: Loss | None = None,
    ) -> MetaStep:
        """One step; the student's parameters and their ``.grad`` are not changed.

        Args:
            student: see `open`, also for ``share`` and ``student_lr``.
            acquisition: L_acq.
            retention: L_ret, of a forward pass at θ'.
            weight: w of the retention term.
            curvature: see `LookAhead.advance`.

        Raises:
            MetaStepError: if the step cannot be taken, with the reason.
        """
        with self.open(student, share, student_lr) as look:
            look.advance(acquisition(look.student), curvature)
            return look.gradient(retention(look.ahead), weight)

    def open(
        self,
        student: nn.Module,
        share: float = 1.0,
        student_lr: float | None = None,
        along: Sequence[Tensor | None] | None = None,
    ) -> LookAhead:
        """Open one step on ``student``; only its buffers change.

        Args:
            student: already in the mode (train or eval) to be used. Parameters without ``requires_grad`` are left out.
            share: the weight of acquisition, which also scales α: the inner step descends ``share`` · L_acq.
            student_lr: the student's own learning rate, for ``alpha_ratio``.
            along: direction of the inner step in place of ∇L_acq(θ), one for each trainable parameter, None for one
                that stays; see `LookAhead`.

        Returns:
            A context manager::

                with step.open(student) as look:
                    acquisition = criterion(look.student(x_new), t_new)
                    look.advance(acquisition)
                    retention = criterion(look.ahead(x_old), t_old)
                    gradients = look.gradient(retention).gradients

        Raises:
            MetaStepError: if the engine cannot differentiate the student, with the reason.
            ValueError: if ``alpha_ratio`` is set and ``student_lr`` is not given.
        """
        check_student(student, self.options.engine)
        rates = self._rates(trainable(student), share, student_lr)
        inner = INNER[self.options.inner](rates, self.options, self.average)
        received = None if self.learned is None else partial(self.learned.receive, share=share)
        return LookAhead(student, inner, self.updates_statistics, received, self.at_once, along)

    def _rates(self, parameters: Sequence[Tensor], share: float, student_lr: float | None) -> Sequence[Rate]:
        """α of each of ``parameters``, times the weight of acquisition."""
        o, count = self.options, len(parameters)
        if o.alpha_ratio is not None:
            if student_lr is None:
                raise ValueError("alpha_ratio is a multiple of the student's learning rate; give it as student_lr=")
            return [share * o.alpha_ratio * student_lr] * count
        if not o.alpha_rate:
            return [share * o.alpha] * count
        if self.learned is None:
            self.learned = LearnedRates(count, o.alpha, o.alpha_rate, parameters[0].device if parameters else None)
        return self.learned.rates(share)

    def parameters(self) -> list[Tensor]:
        """What is learned besides the student, for its gradient to be averaged over processes: log α, or nothing."""
        return [] if self.learned is None else [self.learned.log]

    def learn(self) -> None:
        """Update learned rates by the gradient from the last step."""
        if self.learned is not None:
            self.learned.learn()

    def state_dict(self) -> State:
        """The learned rates, if any are learned."""
        return {} if self.learned is None else self.learned.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.learned = None
        if state:
            o, log = self.options, state["log"]
            self.learned = LearnedRates(len(log), o.alpha, o.alpha_rate, log.device)
            self.learned.load_state_dict(state)
