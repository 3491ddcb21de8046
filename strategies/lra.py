"""Learning to Retain while Acquiring (LRA), as an Avalanche plugin.

Patel, Mopuri and Qiu, CVPR 2023, https://arxiv.org/abs/2302.14290. For every student step, with new samples x_a
and replayed samples x_r:

    L_acq(θ)  = D(S(x_a; θ), T(x_a))                  learn the new,
    θ' = θ - α ∇L_acq(θ)
    L_ret(θ') = D(S(x_r; θ'), T(x_r))                 and keep the old where learning the new would lead:
    minimise    L_acq(θ) + w·L_ret(θ - α ∇L_acq(θ))

In the paper both losses have full weight (``mixture="sum"``); by default each is weighted by its share of the images,
which is plain replay's joint loss when α is 0. The inner step descends the weighted acquisition loss s·L_acq, so that a
step with few new images, which move the student less far, also looks less far ahead: θ' = θ - α s ∇L_acq(θ). There is
one α for each parameter tensor, learned on the same objective (`lra.meta.step.LearnedRates`) unless it is constant.

The released code never applied the second term: it differentiated through detached copies of the student
(``higher``'s default), so its step equals plain replay to the last bit. That is ``objective="reference_detached"``
here. What it was meant to do, adding L_ret(θ') to the loss of the joint batch, is ``objective="reference"``.

Two cheaper forms are ours: ``along="momentum"`` looks ahead along the optimiser's momentum m, θ' = θ - α (1-μ) m, where
m is a constant in the objective above; ``every=k`` looks ahead in every k-th step, and the others are plain replay.
"""

import inspect
from collections.abc import Sequence

from avalanche.core import SupervisedPlugin
from torch import Tensor

from lra.meta.engines import trainable
from lra.meta.inner import along_momentum
from lra.meta.lookahead import Forward, LookAhead, Loss, in_one_batch
from lra.meta.options import LRAOptions
from lra.meta.step import LookAheadStep
from lra.problem import Batch
from lra.state import State
from lra.strategies.divergence import DivergenceGuard
from lra.strategies.strategy import DataFreeDistillation, Replay, StudentStep
from lra.view import StudentView


class LRA(StudentStep):
    """Replaces a student step's gradient by that of the objective above.

    ``strategy.loss`` becomes a scalar that carries exactly that gradient. Later plugins may still add to it, also
    through the minibatch's own forward pass (``strategy.mb_output``): the student's gradient is then that of the
    objective plus that of what was added, both at θ. What earlier plugins have added is part of the acquisition loss:
    the inner step descends it, its Hessian enters the gradient, and it is weighted like the rest of that loss.

    Args:
        replay: provides the samples to retain; while it has none, the step is plain acquisition.
        options: α and all other settings.

    Attributes:
        lookahead: takes the steps, and learns α.
    """

    def __init__(self, replay: Replay, options: LRAOptions | None = None):
        super().__init__()
        self.replay = replay
        self.options = options or LRAOptions()
        self._of_paper = self.options.objective == "paper"
        # The joint batch's own forward pass moves the statistics under the reference objective.
        self.lookahead = LookAheadStep(self.options, updates_statistics=self._of_paper)
        self._look: LookAhead | None = None
        self._is_heard_after = False

    def before_training(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Check that the replay is among the plugins and, where needed, that the optimiser has momentum.

        On a GPU, leave the search for non-finite numbers to a `DivergenceGuard`, if there is one.

        Raises:
            ValueError: if the replay is not among the strategy's plugins, or the optimiser lacks the momentum needed.
        """
        self._along(strategy)
        self._is_heard_after = _is_heard_after(self, strategy.plugins)
        if self.replay not in strategy.plugins:
            raise ValueError("LRA's replay is not among the strategy's plugins: write plugins=[replay, LRA(replay)]")
        guarded = any(isinstance(plugin, DivergenceGuard) for plugin in strategy.plugins)
        self.lookahead.at_once = strategy.device.type == "cpu" or not guarded

    def apart(self, strategy: DataFreeDistillation) -> bool:
        """True in a step that looks ahead, under the paper's objective."""
        return self._of_paper and self._looks(strategy)

    def _looks(self, strategy: DataFreeDistillation) -> bool:
        return strategy.clock.train_iterations % self.options.every == 0

    def _along(self, strategy: DataFreeDistillation) -> list[Tensor | None] | None:
        """The optimiser's own direction, if the inner step is to follow it."""
        if self.options.along == "acquisition":
            return None
        return along_momentum(strategy.optimizer, trainable(strategy.model))

    def view(self, strategy: DataFreeDistillation) -> StudentView | None:
        """Open a look-ahead at θ; the forward pass of acquisition goes through it."""
        if strategy.replayed is None or self.options.objective == "reference_detached" or not self._looks(strategy):
            return None
        # The momentum is that of both losses, already weighted.
        share = self._weights(strategy)[1] if self.options.along == "acquisition" else 1.0
        rate, along = float(strategy.optimizer.param_groups[0]["lr"]), self._along(strategy)
        self._look = look = self.lookahead.open(strategy.model, share, rate, along)
        if not self._of_paper:
            return None
        forward = self._with_replayed(look, look.student, strategy)
        return strategy.objective.view(strategy.model, strategy.minibatch, forward, look.network)

    def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Replace the loss by the objective, with its gradient: s (L_acq(θ) + w L_ret(θ'))."""
        if self._look is None or strategy.replayed is None or strategy.acquired is None:
            return
        look, self._look = self._look, None
        objective, new, old, loss = strategy.objective, strategy.acquired, strategy.replayed, strategy.loss
        student, runs = strategy.model, look.network

        def acquisition(forward: Forward) -> Tensor:
            if self._of_paper:
                return loss
            return objective(student, new, self._with_replayed(look, forward, strategy), runs)

        def retention(forward: Forward) -> Tensor:
            view = objective.view(student, old, strategy.cast(forward), runs)
            if self._of_paper:
                strategy.answered = view.student_logits.detach()
            return objective.loss(view)

        weight, share = self._weights(strategy)
        with look:
            ahead = look.objective(
                acquisition,
                retention,
                weight,
                curvature=self._curvature(look, strategy, new),
                include_acquisition=self._of_paper,
                extra=list(objective.parameters()),
                retain_graph=self._is_heard_after,
            )
        strategy.loss = share * ahead if self._of_paper else loss + ahead

    def after_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Learn the rates, whose gradients several processes have averaged by now; release the minibatch's graph."""
        if self._is_heard_after:
            strategy.mb_output = strategy.mb_output.detach()
        self.lookahead.learn()

    def _weights(self, strategy: DataFreeDistillation) -> tuple[float, float]:
        """Weight w of retention relative to acquisition, and the factor s of both."""
        assert strategy.acquired is not None
        assert strategy.replayed is not None
        new, replayed = len(strategy.acquired.images), len(strategy.replayed.images)
        weight = self.options.weight
        if self.options.mixture == "sum" or self.options.objective == "reference":
            return weight, 1.0
        if self.options.mixture == "convex":
            return weight, 1 / (1 + weight)
        return weight * replayed / new, new / (new + replayed)

    def _curvature(self, look: LookAhead, strategy: DataFreeDistillation, new: Batch) -> Loss | None:
        """The acquisition loss of some of the new images, if its Hessian is to stand for that of all of them."""
        if self.options.curvature == 1:
            return None
        count = max(2, round(self.options.curvature * len(new.images)))  # BatchNorm needs two
        part = new.first(count)
        return lambda forward: strategy.objective(strategy.model, part, self._with_replayed(look, forward, strategy))

    def _with_replayed(self, look: LookAhead, forward: Forward, strategy: DataFreeDistillation) -> Forward:
        """A forward pass in which BatchNorm sees the replayed images too, if their statistics are shared."""
        assert strategy.replayed is not None
        if look.lends_statistics:
            forward = in_one_batch(forward, strategy.replayed.images)
        return strategy.cast(forward)

    def state_dict(self) -> State:
        """The learned rates, if any are learned."""
        return self.lookahead.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.lookahead.load_state_dict(state)


def _is_heard_after(step: LRA, plugins: Sequence[object]) -> bool:
    """Whether a plugin after ``step`` acts before the backward pass, for example by adding to the loss."""
    later = plugins[plugins.index(step) + 1 :]
    callbacks = [inspect.unwrap(callback) for p in later if (callback := getattr(p, "before_backward", None))]
    return any(getattr(each, "__func__", each) is not SupervisedPlugin.before_backward for each in callbacks)
