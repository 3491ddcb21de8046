"""Learning to Retain while Acquiring (LRA), as an Avalanche plugin.

Patel, Mopuri and Qiu, CVPR 2023, https://arxiv.org/abs/2302.14290. For every student step, with new samples x_a
and replayed samples x_r:

    L_acq(θ)  = D(S(x_a; θ), T(x_a))                  learn the new,
    θ' = θ - α ∇L_acq(θ)
    L_ret(θ') = D(S(x_r; θ'), T(x_r))                 and keep the old where learning the new would lead:
    minimise    L_acq(θ) + w·L_ret(θ - α ∇L_acq(θ))

Both losses count whole in the paper (``mixture="sum"``); by default each counts by its share of the images, which is
plain replay's joint loss when α goes to 0.

The released code never applied the second term: it differentiated through detached copies of the student
(``higher``'s default), so its step equals plain replay to the last bit. That is ``objective="reference_detached"``
here. What it meant to do, L_ret(θ') beside the loss of the joint batch, is ``objective="reference"``.
"""

from contextlib import ExitStack
from typing import Annotated, Literal, Self

from avalanche.core import SupervisedPlugin
from pydantic import Field, model_validator

from lra.distillation.objective import gradients_beside
from lra.meta import InnerSGD, LookAhead, carry, lookahead
from lra.options import NonNegative, Options, Positive
from lra.strategies.replay import Replay
from lra.strategies.strategy import DataFreeDistillation


class LRAOptions(Options):
    """How the step is taken."""

    alpha: Positive = 0.01
    """Inner rate α; published as 0.9, where the live term sends training to chance."""
    alpha_ratio: Positive | None = None
    """α as a multiple of the student's current learning rate, in place of ``alpha``."""
    weight: NonNegative = 1.0
    """w, of the retention loss."""
    mixture: Literal["proportional", "sum"] = "proportional"
    """How the two losses add up: each by its share of the images, as in plain replay's joint batch, or both whole,
    as the paper writes it (with an eighth of the images, replay then pulls as hard as all new samples together,
    and the student's effective rate doubles)."""
    objective: Literal["paper", "reference", "reference_detached"] = "paper"
    order: Literal[1, 2] = 2
    """1 leaves the curvature out: θ' is taken as given."""
    engine: Literal["lean", "higher"] = "lean"
    batchnorm: Literal["acquisition", "both"] = "acquisition"
    """Which batches move the student's running statistics, once each per step."""
    ahead_statistics: Literal["batch", "running"] = "batch"
    """What BatchNorm normalises the replayed batch with at θ'."""
    inner_weight_decay: NonNegative = 0.0
    """λ of the inner step (published: 5e-4)."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the inner gradient."""
    normalise: bool = False
    """Divide the inner gradient by its norm."""

    @model_validator(mode="after")
    def _clip_or_normalise(self) -> Self:
        if self.clip is not None and self.normalise:
            raise ValueError("clip and normalise exclude each other; drop one")
        return self


class LRA(SupervisedPlugin):
    """Replaces a student step's gradient by that of the objective above; comes after the replay plugin.

    ``strategy.loss`` becomes a scalar that carries exactly that gradient, so that other plugins may still add
    to it. What they added before is part of the acquisition loss.

    Args:
        replay: brings the samples to retain; where it has none yet, the step is plain acquisition.
        options: α and all else.
    """

    def __init__(self, replay: Replay, options: LRAOptions | None = None):
        super().__init__()
        self.options = options or LRAOptions()
        replay.join = self.options.objective != "paper"
        self._open = ExitStack()
        self._look: LookAhead | None = None

    def before_forward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Open the look-ahead, through which the acquisition's forward pass then goes."""
        if strategy.replayed is None or self.options.objective == "reference_detached":
            return
        self._look = look = self._open.enter_context(self._lookahead(strategy))
        if self.options.objective == "paper":
            strategy.forward_model = look.student

    def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Put the objective, with its gradient, in the place of the loss."""
        if self._look is None or strategy.replayed is None or strategy.acquired is None:
            return
        look, self._look, strategy.forward_model = self._look, None, None
        joint = None if self.options.objective == "paper" else strategy.loss
        with self._open.pop_all():
            acquisition = strategy.loss
            if joint is not None:
                acquisition = strategy.objective(look.student(strategy.acquired.images), strategy.acquired)
            extra = list(strategy.objective.parameters())
            beside = gradients_beside(acquisition, extra)
            look.advance(acquisition)
            retention = strategy.objective(look.ahead(strategy.replayed.images), strategy.replayed)
            kept = gradients_beside(retention, extra)
            weight, share = self._weights(len(strategy.acquired.images), len(strategy.replayed.images))
            gradients = look.gradient(retention, weight, acquisition=joint is None)
        value = weight * retention.detach() + (acquisition.detach() if joint is None else 0)
        parameters = [p for p in strategy.model.parameters() if p.requires_grad]
        new = 1.0 if joint is None else 0.0
        own = [new * a + weight * r for a, r in zip(beside, kept, strict=True)]
        meta = carry(value, [*parameters, *extra], [*gradients, *own])
        strategy.loss = share * meta if joint is None else joint + meta

    def _weights(self, new: int, replayed: int) -> tuple[float, float]:
        """Weight of retention beside acquisition, and the factor of both."""
        if self.options.mixture == "sum" or self.options.objective == "reference":
            return self.options.weight, 1.0
        return self.options.weight * replayed / new, new / (new + replayed)

    def _lookahead(self, strategy: DataFreeDistillation) -> LookAhead:
        o = self.options
        rate = strategy.optimizer.param_groups[0]["lr"]
        alpha = o.alpha if o.alpha_ratio is None else o.alpha_ratio * rate
        inner = InnerSGD(alpha, weight_decay=o.inner_weight_decay, clip=o.clip, normalise=o.normalise)
        return lookahead(
            strategy.model,
            inner=inner,
            engine=o.engine,
            order=o.order,
            # The joint batch's own forward pass moves the statistics under the reference objective.
            batchnorm=o.batchnorm if o.objective == "paper" else "none",
            ahead_statistics=o.ahead_statistics,
        )
