"""Learning to Retain while Acquiring (LRA), as an Avalanche plugin.

Patel, Mopuri and Qiu, CVPR 2023, https://arxiv.org/abs/2302.14290. For every student step, with new samples x_a
and replayed samples x_r:

    L_acq(θ)  = D(S(x_a; θ), T(x_a))                  learn the new,
    θ' = θ - α ∇L_acq(θ)
    L_ret(θ') = D(S(x_r; θ'), T(x_r))                 and keep the old where learning the new would lead:
    minimise    L_acq(θ) + w·L_ret(θ - α ∇L_acq(θ))

Both losses count whole in the paper (``mixture="sum"``); by default each counts by its share of the images, which is
plain replay's joint loss when α is 0. The inner step goes down the acquisition loss as it counts, s·L_acq, so that a
step with few new images, which take the student less far, looks less far ahead: θ' = θ - α s ∇L_acq(θ). There is an α
for each parameter tensor, learned down the same objective (`lra.meta.LearnedRates`) unless it is to be constant.

The released code never applied the second term: it differentiated through detached copies of the student
(``higher``'s default), so its step equals plain replay to the last bit. That is ``objective="reference_detached"``
here. What it meant to do, L_ret(θ') beside the loss of the joint batch, is ``objective="reference"``.
"""

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from avalanche.core import SupervisedPlugin
from torch import Tensor

from lra.anatomy import batchnorm_layers
from lra.distillation.objective import gradients_beside
from lra.meta import AheadStatistics, Curvature, Forward, LearnedRates, LookAhead, Rates, beside, carry, lookahead
from lra.meta.inner import Average
from lra.problem import Batch
from lra.state import State
from lra.strategies.lra_options import LRAOptions
from lra.strategies.strategy import DataFreeDistillation, Replay, StudentStep

AHEAD: dict[str, AheadStatistics] = {"joint": "acquisition", "batch": "batch", "running": "running"}
"""By ``statistics``, what BatchNorm normalises by at θ'; the pass of the acquisition is one of all images, if joint."""


class LRA(StudentStep):
    """Replaces a student step's gradient by that of the objective above; comes after the replay plugin.

    ``strategy.loss`` becomes a scalar that carries exactly that gradient, so that other plugins may still add
    to it, through the minibatch's own forward pass too (``strategy.mb_output``): the student's gradient is then that of
    the objective plus that of what was added, both at θ. What they added before is part of the acquisition loss, along
    which the inner step goes, whose Hessian counts, and which is weighted as it is.

    Args:
        replay: brings the samples to retain; where it has none yet, the step is plain acquisition.
        options: α and all else.

    Attributes:
        average: what becomes of ∇L_acq before the inner step; a run on several processes sets it.
    """

    def __init__(self, replay: Replay, options: LRAOptions | None = None):
        super().__init__()
        self.options = options or LRAOptions()
        self.average: Average | None = None
        self.apart = self.options.objective == "paper"
        self._open = ExitStack()
        self._look: LookAhead | None = None
        self._learned: LearnedRates | None = None
        self._state: State = {}
        self._keeps = False

    def through(self, strategy: DataFreeDistillation) -> Forward | None:
        """Open the look-ahead; the acquisition's forward pass goes through it."""
        if strategy.replayed is None or self.options.objective == "reference_detached":
            return None
        self._look = look = self._open.enter_context(self._lookahead(strategy))
        return self._beside(look.student, strategy, strategy.replayed) if self.apart else None

    def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Put the objective, with its gradient, in the place of the loss."""
        if self._look is None or strategy.replayed is None or strategy.acquired is None:
            return
        look, self._look = self._look, None
        joint = None if self.apart else strategy.loss
        with self._open.pop_all():
            acquisition = strategy.loss
            if joint is not None:
                forward = self._beside(look.student, strategy, strategy.replayed)
                acquisition = strategy.objective(forward(strategy.acquired.images), strategy.acquired)
            extra = list(strategy.objective.parameters())
            learnt = gradients_beside(acquisition, extra)
            self._keeps = _are_heard_after(self, strategy.plugins)
            look.advance(acquisition, self._curvature(strategy, strategy.acquired, strategy.replayed), self._keeps)
            ahead = strategy.cast(look.ahead)
            retention = strategy.objective(ahead(strategy.replayed.images), strategy.replayed)
            kept = gradients_beside(retention, extra)
            weight, share = self._weights(strategy)
            gradients = look.gradient(retention, weight, acquisition=joint is None)
        if self._learned is not None:
            self._learned.receive(look.alpha_gradient, share)
        value = weight * retention.detach() + (acquisition.detach() if joint is None else 0)
        parameters = [p for p in strategy.model.parameters() if p.requires_grad]
        new = 1.0 if joint is None else 0.0
        own = [new * a + weight * r for a, r in zip(learnt, kept, strict=True)]
        meta = carry(value, [*parameters, *extra], [*gradients, *own])
        strategy.loss = share * meta if joint is None else joint + meta

    def after_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Learn the rates, from what several processes have averaged by now; let go of the minibatch's graph."""
        if self._keeps:
            strategy.mb_output, self._keeps = strategy.mb_output.detach(), False
        if self._learned is not None:
            self._learned.learn()

    def learned(self) -> list[Tensor]:
        """What is learned beside the student, for its gradient to be averaged over processes: log α, if it is."""
        return [] if self._learned is None else [self._learned.log]

    def _weights(self, strategy: DataFreeDistillation) -> tuple[float, float]:
        """Weight of retention beside acquisition, and the factor of both."""
        assert strategy.acquired is not None
        assert strategy.replayed is not None
        new, replayed = len(strategy.acquired.images), len(strategy.replayed.images)
        weight = self.options.weight
        if self.options.mixture == "sum" or self.options.objective == "reference":
            return weight, 1.0
        if self.options.mixture == "convex":
            return weight, 1 / (1 + weight)
        return weight * replayed / new, new / (new + replayed)

    def _curvature(self, strategy: DataFreeDistillation, acquired: Batch, replayed: Batch) -> Curvature | None:
        if self.options.curvature == 1:
            return None
        count = max(2, round(self.options.curvature * len(acquired.images)))  # BatchNorm needs two
        part = acquired.first(count)
        return lambda forward: strategy.objective(self._beside(forward, strategy, replayed)(part.images), part)

    def _beside(self, forward: Forward, strategy: DataFreeDistillation, others: Batch) -> Forward:
        """A forward pass in which BatchNorm sees ``others`` too, if it is to and there is any."""
        if self.options.statistics == "joint" and batchnorm_layers(strategy.model, others.images.shape[1:]):
            forward = beside(forward, others.images)
        return strategy.cast(forward)

    def _lookahead(self, strategy: DataFreeDistillation) -> LookAhead:
        o = self.options
        return lookahead(
            strategy.model,
            inner=replace(o.rule(self._alpha(strategy)), average=self.average),
            engine=o.engine,
            order=o.order,
            # The joint batch's own forward pass moves the statistics under the reference objective.
            batchnorm=o.batchnorm if o.objective == "paper" else "none",
            ahead_statistics=AHEAD[o.statistics],
        )

    def _alpha(self, strategy: DataFreeDistillation) -> Rates:
        """α times the share with which acquisition counts."""
        o = self.options
        _, share = self._weights(strategy)
        if o.alpha_ratio is not None:
            return share * o.alpha_ratio * float(strategy.optimizer.param_groups[0]["lr"])
        if not o.alpha_rate:
            return share * o.alpha
        if self._learned is None:
            count = sum(parameter.requires_grad for parameter in strategy.model.parameters())
            self._learned = LearnedRates(count, o.alpha, o.alpha_rate)
            if self._state:
                self._learned.load_state_dict(self._state)
                self._state = {}
        return self._learned.rates(share)

    def state_dict(self) -> State:
        """The learned rates, if they are learned."""
        return self._learned.state_dict() if self._learned is not None else self._state

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._learned, self._state = None, state


def _are_heard_after(step: LRA, plugins: Sequence[object]) -> bool:
    """Whether a plugin after ``step`` does something before the backward pass: add to the loss, maybe."""
    later = plugins[plugins.index(step) + 1 :]
    callbacks = [inspect.unwrap(callback) for p in later if (callback := getattr(p, "before_backward", None))]
    return any(getattr(each, "__func__", each) is not SupervisedPlugin.before_backward for each in callbacks)
