"""The LRA step: minimise L_acq(θ) + w L_ret(θ'), with θ' = θ − α · rule(∇L_acq(θ)).

Patel, Mopuri and Qiu, Learning to Retain while Acquiring, CVPR 2023, arXiv:2302.14290. For plain SGD the
gradient is g + w (I − α H) v, with g = ∇L_acq(θ), H the Hessian of L_acq at θ, and v = ∇L_ret at θ'. The
published code never had the second term: it differentiated through copies that were detached from θ.

A `LookAhead` is one step; `lra.meta.step.LookAheadStep` opens it, and keeps α from step to step.
"""

from collections.abc import Callable, Sequence
from math import isfinite
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

from lra.meta.checks import MetaDiverged, MetaStepError, explained, require_twice_differentiable
from lra.meta.engines import ENGINES, Engine, clones, differentiable, swapped, trainable
from lra.meta.inner import InnerRule

Forward = Callable[..., Any]
"""A forward pass of the student: ``(batch, *image) -> (batch, classes)`` for a classifier."""

Loss = Callable[[Forward], Tensor]
"""Given a forward pass, a scalar loss."""


class MetaStep(NamedTuple):
    """The results of one step.

    Attributes:
        acquisition: L_acq(θ), a detached scalar.
        retention: L_ret(θ'), a detached scalar.
        gradients: g + w ∇_θ L_ret(θ'), one for each trainable parameter.
        alpha_gradient: gradient of the same objective with respect to the α of each of them, if rates are learned.
        acquired: g.
        retained: v.
    """

    acquisition: Tensor
    retention: Tensor
    gradients: tuple[Tensor, ...]
    alpha_gradient: tuple[Tensor, ...]
    acquired: Sequence[Tensor]
    retained: Sequence[Tensor]

    @property
    def alignment(self) -> Tensor:
        """Cosine of g and v, a scalar in [-1, 1]; 0 when one of them is zero."""
        g, v = (torch.cat([part.flatten() for part in vector]) for vector in (self.acquired, self.retained))
        return F.cosine_similarity(g, v, dim=0)


class LookAhead:
    """One step: call `student`, `advance`, `ahead`, `gradient`, in this order, or `objective`, which does it all.

    Args:
        student: see `LookAheadStep.open`, which makes look-aheads.
        inner: α and the rule that computes θ'.
        updates_statistics: see `LookAheadStep`.
        received: called with the gradient for each α, if they are learned.
        at_once: whether to check in every step that its numbers are finite, which waits for a GPU; otherwise this is
            left to the caller.
        along: direction of the inner step in place of ∇L_acq(θ), one for each parameter; for `objective` only.
    """

    def __init__(
        self,
        student: nn.Module,
        inner: InnerRule,
        updates_statistics: bool,
        received: Callable[[Sequence[Tensor]], None] | None,
        at_once: bool = True,
        along: Sequence[Tensor | None] | None = None,
    ):
        self.inner = inner
        self.options = inner.options
        self.received = received
        self.at_once = at_once
        self._module = student
        self._acquired: list[Tensor | None] = []
        self._acquisition: Tensor | None = None
        self._curvature: Loss | None = None
        self._retain_graph = False
        self._along = along
        order = self.options.order if along is None else 1
        self._engine: Engine | None = ENGINES[self.options.engine](student, inner, updates_statistics, order)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The graphs go with the engine.
        self._engine, self._acquired, self._curvature = None, [], None

    def objective(
        self,
        acquisition: Loss,
        retention: Loss,
        weight: float = 1.0,
        *,
        curvature: Loss | None = None,
        include_acquisition: bool = True,
        extra: Sequence[nn.Parameter] = (),
        retain_graph: bool = False,
    ) -> Tensor:
        """L_acq(θ) + ``weight`` · L_ret(θ'), a scalar that carries exactly its gradient, see `surrogate_loss`.

        Args:
            acquisition: L_acq, from a pass of `student`, which may have been made before.
            retention: L_ret, from the forward pass that it is given.
            weight: w.
            curvature: see `advance`, also for ``retain_graph``.
            include_acquisition: False leaves L_acq itself out of the sum.
            extra: parameters of the losses themselves; they get their gradient too, at θ.
        """
        acquired = acquisition(self.student)
        if self._along is not None:
            return self._objective_along(acquired, retention, weight, include_acquisition)
        learnt = _gradients(acquired, extra)
        self.advance(acquired, curvature, retain_graph)
        retained = retention(self.ahead)
        kept = _gradients(retained, extra)
        step = self.gradient(retained, weight, include_acquisition)
        own = [include_acquisition * a + weight * r for a, r in zip(learnt, kept, strict=True)]
        value = weight * step.retention + (step.acquisition if include_acquisition else 0)
        return surrogate_loss(value, [*trainable(self._module), *extra], [*step.gradients, *own])

    def _objective_along(self, acquired: Tensor, retention: Loss, weight: float, include_acquisition: bool) -> Tensor:
        """The objective where θ' − θ is a constant, so that only the graphs of the losses are needed."""
        engine = self._open()
        self._begin(acquired)
        engine.there = self.inner.moved(engine.theta, self._along or [])
        retained = retention(self.ahead)
        self._require_sane(retained, "retention loss")
        return weight * retained + (acquired if include_acquisition else 0)

    def _begin(self, acquisition: Tensor) -> None:
        """Note L_acq(θ), if it is finite."""
        if self.at_once and not isfinite(loss := float(acquisition.detach())):
            raise MetaDiverged(f"acquisition loss is {loss:g} at θ; the student has diverged: lower its learning rate")
        self._acquisition = acquisition.detach()

    @property
    def lends_statistics(self) -> bool:
        """Whether BatchNorm at θ' normalises by the statistics at θ, of new and replayed images together."""
        return self._open().lends_moments

    def _open(self) -> Engine:
        if self._engine is None:
            raise MetaStepError("this look-ahead is closed; open a new one for each step")
        return self._engine

    @property
    def network(self) -> nn.Module:
        """The network whose modules run in the passes: the student itself, or a copy with the same module names."""
        return self._open().network

    def student(self, *args: Any, **kwargs: Any) -> Any:
        """Forward at θ, in the student's own mode; treats the buffers by the policy."""
        return self._open().student(*args, **kwargs)

    def advance(self, acquisition: Tensor, curvature: Loss | None = None, retain_graph: bool = False) -> None:
        """Take the inner step: g = ∇L_acq(θ), θ' = θ − α · rule(g).

        Args:
            acquisition: scalar loss of ``student(...)``.
            curvature: approximate second order (lean engine only): g stays exact, while H is that of
                ``curvature(forward)``, usually the loss on a part of the acquisition batch. The forward pass is the
                student's at θ on cloned buffers, with new dropout masks.
            retain_graph: keep the graph of the pass at θ, for the caller to use once more after the step.

        Raises:
            MetaDiverged: if the loss is not finite.
            MetaStepError: if the loss does not depend on θ, or cannot be differentiated (twice).
        """
        engine = self._open()
        if engine.there is not None:
            raise MetaStepError("advance() was already called in this look-ahead; open a new one for each step")
        if curvature is not None and (self.options.engine, self.options.order) != ("lean", 2):
            raise MetaStepError("curvature= needs engine='lean' and order=2; change these, or drop it")
        if self._along is not None:
            raise MetaStepError("this look-ahead takes no gradient of acquisition; take its objective()")
        self._begin(acquisition)
        self._curvature, self._retain_graph = curvature, retain_graph
        with explained("inner step"):
            self._acquired = engine.advance(acquisition, create_graph=not self._detached, retain_graph=retain_graph)
        if not self._detached:
            require_twice_differentiable(engine.there or [])
        if all(gradient is None for gradient in self._acquired):
            raise MetaStepError("acquisition loss does not depend on the student; compute it from look.student(x)")

    def ahead(self, *args: Any, **kwargs: Any) -> Any:
        """Forward at θ', in the student's own mode."""
        engine = self._open()
        if engine.there is None:
            raise MetaStepError("ahead() before advance(); call look.advance(acquisition) first")
        return engine.ahead(*args, **kwargs)

    def gradient(self, retention: Tensor, weight: float = 1.0, include_acquisition: bool = True) -> MetaStep:
        """g + ``weight`` · ∇_θ retention, one tensor for each trainable parameter, in the student's order.

        Learned rates receive their gradient.

        Args:
            retention: scalar loss of ``ahead(...)``; terms that depend on θ directly are included too.
            weight: w, a finite number.
            include_acquisition: False leaves g out of the sum.

        Raises:
            MetaStepError: if the loss or the gradient is not finite, or cannot be differentiated.
        """
        engine = self._open()
        if engine.there is None or self._acquisition is None:
            raise MetaStepError("gradient() before advance(); call look.advance(acquisition) first")
        self._require_sane(retention, "retention loss")
        count = len(engine.theta)
        with explained("outer gradient"):
            targets = [*engine.theta, *engine.there]
            found = torch.autograd.grad(retention, targets, retain_graph=self._retain_graph, allow_unused=True)
            outer, ahead = found[:count], _filled(found[count:], engine.theta)
            if self._curvature is not None:
                meta = _plus(outer, self._through_step(engine, ahead))
            elif self.options.order == 1:
                meta = _plus(outer, ahead)
            else:
                meta = _filled(outer, engine.theta)
        acquired = _filled(self._acquired, engine.theta)
        base = acquired if include_acquisition else _filled([None] * count, engine.theta)
        total = tuple(torch._foreach_add(base, meta, alpha=weight))
        if self.at_once:
            self._require_sane(get_total_norm(total), "gradient norm")
        alpha_gradient: tuple[Tensor, ...] = ()
        if self.received is not None:
            # Of θ' = θ − α d, at any order: d does not depend on α.
            zero = retention.new_zeros(())
            pairs = zip(engine.directions, ahead, strict=True)
            alpha_gradient = tuple(zero if d is None else -weight * (d * v).sum() for d, v in pairs)
            self.received(alpha_gradient)
        return MetaStep(self._acquisition, retention.detach(), total, alpha_gradient, acquired, ahead)

    @property
    def _detached(self) -> bool:
        return self.options.order == 1 or self._curvature is not None

    def _through_step(self, engine: Engine, ahead: Sequence[Tensor]) -> list[Tensor]:
        """∇L_ret(θ') propagated from the leaf θ' back to θ, through a Hessian that stands in for H."""
        theta, given, moved = engine.inner_step(self._acquired)
        present = [gradient for gradient in given if gradient is not None]
        found = torch.autograd.grad(moved, [*theta, *present], ahead, allow_unused=True)
        cotangents = iter(found[len(theta) :])
        bent = self._hessian_product(engine, [None if g is None else next(cotangents) for g in given])
        return _plus(found[: len(theta)], bent)

    def _hessian_product(self, engine: Engine, vector: Sequence[Tensor | None]) -> list[Tensor]:
        assert self._curvature is not None
        buffers = clones(self._module)

        def forward(*args: Any, **kwargs: Any) -> Any:
            with differentiable(self.options.rules, 2), swapped(self._module, buffers):
                return self._module(*args, **kwargs)

        gradients = torch.autograd.grad(self._curvature(forward), engine.theta, create_graph=True, allow_unused=True)
        require_twice_differentiable(gradients)
        pairs = [
            (g, v)
            for g, v in zip(gradients, vector, strict=True)
            if g is not None and g.requires_grad and v is not None
        ]
        if not pairs:
            return _filled([None] * len(vector), engine.theta)
        outputs, cotangents = zip(*pairs, strict=True)
        return _filled(torch.autograd.grad(outputs, engine.theta, cotangents, allow_unused=True), engine.theta)

    def _require_sane(self, value: Tensor, name: str) -> None:
        if not self.at_once or isfinite(float(value.detach())):
            return
        present = [gradient for gradient in self._acquired if gradient is not None]
        raise MetaDiverged(
            f"{name} is {float(value.detach()):g} after an inner step of α={self.inner.describe()} "
            f"(acquisition loss {float(self._acquisition or 0):g}, gradient norm "
            f"{float(get_total_norm(present)):g}); lower α, or clip or normalise the inner gradient"
        )


def in_one_batch(forward: Forward, others: Tensor) -> Callable[[Tensor], Tensor]:
    """``forward`` for images (n, C, H, W) followed by ``others`` in one batch, so that BatchNorm sees all of them."""
    return lambda images: forward(torch.cat([images, others]))[: len(images)]


class _SurrogateLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = outputs
        return None, None, *torch._foreach_mul(ctx.gradients, output.reshape(()))


def surrogate_loss(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """``value``, with ``gradients`` as its gradient.

    ``surrogate_loss(...).backward()`` adds exactly ``gradients`` to the parameters' ``.grad``, whatever graph
    ``value`` had; ``(surrogate_loss(...) + penalty).backward()`` adds the penalty's too; a loss scaler scales them.

    Args:
        value: scalar; the value of the loss. Its own graph is not used.
        parameters: the tensors that receive the gradients; each requires grad.
        gradients: one for each parameter, of its shape.

    Raises:
        ValueError: if counts or shapes differ.
    """
    if len(parameters) != len(gradients):
        raise ValueError(f"{len(gradients)} gradients for {len(parameters)} parameters; give one each")
    for index, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        if parameter.shape != gradient.shape:
            shapes = f"{tuple(gradient.shape)}, its parameter {tuple(parameter.shape)}"
            raise ValueError(f"gradient {index} has shape {shapes}; give gradients in the parameters' order")
    return _SurrogateLoss.apply(value, tuple(gradients), *parameters)


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradients of ``loss`` for ``parameters``, zero where it does not depend on them; keeps the graph."""
    if not parameters:
        return []
    return _filled(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), parameters)


def _plus(left: Sequence[Tensor | None], right: Sequence[Tensor]) -> list[Tensor]:
    """The sum of both, with ``None`` as 0."""
    return [b if a is None else a + b for a, b in zip(left, right, strict=True)]


def _filled(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """``gradients`` with zeros where autograd found no dependence, shaped as ``like``."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)]
