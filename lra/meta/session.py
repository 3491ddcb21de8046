"""The LRA step: minimise L_acq(θ) + w L_ret(θ'), with θ' = θ − α · rule(∇L_acq(θ)).

Patel, Mopuri and Qiu, Learning to Retain while Acquiring, CVPR 2023, arXiv:2302.14290. For plain SGD the
gradient is g + w (I − α H) v, with g = ∇L_acq(θ), H the Hessian of L_acq at θ, and v = ∇L_ret at θ'. The
published code never reached the second term: it differentiated through copies that were cut off from θ.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from lra.meta.engines import ENGINES, Engine
from lra.meta.errors import MetaDiverged, MetaStepError, explained
from lra.meta.graphs import require_twice_differentiable
from lra.meta.guards import check_student
from lra.meta.passes import clones, differentiable, swapped
from lra.meta.settings import Settings
from lra.meta.vectors import cosine, filled, plus

Forward = Callable[..., Any]
"""A forward pass of the student: ``(batch, *image) -> (batch, classes)`` for a classifier."""

Curvature = Callable[[Forward], Tensor]
"""Given a forward pass at θ, a loss whose Hessian stands in for that of the acquisition loss."""


class LookAhead:
    """One meta step: ``student``, ``advance``, ``ahead``, ``gradient``, in this order; see `lookahead`.

    Attributes:
        alignment: after `gradient`, the cosine of g and v, a scalar tensor in [-1, 1].
        alpha_gradient: after `gradient`, the objective's gradient for each of ``inner.learnable()``.
    """

    def __init__(self, student: nn.Module, settings: Settings) -> None:
        check_student(student, settings.engine)
        self.settings = settings
        self.alignment: Tensor | None = None
        self.alpha_gradient: tuple[Tensor, ...] = ()
        self._alphas = settings.inner.learnable()
        self._module = student
        self._acquired: list[Tensor | None] = []
        self._acquisition: Tensor | None = None
        self._curvature: Curvature | None = None
        self._keep = False
        self._engine: Engine | None = ENGINES[settings.engine](student, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The graphs go with the engine.
        self._engine, self._acquired, self._curvature = None, [], None

    def _open(self) -> Engine:
        if self._engine is None:
            raise MetaStepError("this look-ahead is closed; open a new one for each step")
        return self._engine

    def student(self, *args: Any, **kwargs: Any) -> Any:
        """Forward at θ, in the student's own mode; keeps the buffers by the policy."""
        return self._open().student(*args, **kwargs)

    def advance(self, acquisition: Tensor, curvature: Curvature | None = None, keep: bool = False) -> None:
        """Take the inner step: g = ∇L_acq(θ), θ' = θ − α · rule(g).

        Args:
            acquisition: scalar loss of ``student(...)``.
            curvature: approximate second order (lean engine only): g stays exact, while H is that of
                ``curvature(forward)``, as a rule the loss on a part of the acquisition batch. The forward
                pass is the student's at θ on cloned buffers, with fresh dropout masks.
            keep: leave the graph of the pass at θ whole, for the caller to go through once more after the step.

        Raises:
            MetaDiverged: the loss is not finite.
            MetaStepError: it does not depend on θ, or cannot be differentiated (twice).
        """
        engine = self._open()
        if engine.there is not None:
            raise MetaStepError("advance() was already called in this look-ahead; open a new one for each step")
        if curvature is not None and (self.settings.engine, self.settings.order) != ("lean", 2):
            raise MetaStepError("curvature= needs engine='lean' and order=2; change these, or drop it")
        if self.settings.check and not bool(torch.isfinite(acquisition.detach()).all()):
            raise MetaDiverged(
                f"acquisition loss is {float(acquisition.detach()):g} at θ; the student has diverged: "
                "lower its learning rate"
            )
        self._acquisition, self._curvature, self._keep = acquisition.detach(), curvature, keep
        with explained("inner step"):
            self._acquired = engine.advance(acquisition, create_graph=not self._detached, keep=keep)
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

    def gradient(self, retention: Tensor, weight: float = 1.0, acquisition: bool = True) -> tuple[Tensor, ...]:
        """g + ``weight`` · ∇_θ retention, one tensor for each trainable parameter, in the student's order.

        Args:
            retention: scalar loss of ``ahead(...)``; terms that depend on θ directly count too.
            weight: w, a finite number.
            acquisition: False leaves g out of the sum.

        Raises:
            MetaStepError: the loss or the gradient is not finite, or cannot be differentiated.
        """
        engine = self._open()
        if engine.there is None:
            raise MetaStepError("gradient() before advance(); call look.advance(acquisition) first")
        self._require_sane(retention, "retention loss")
        count = len(engine.theta)
        with explained("outer gradient"):
            targets = [*engine.theta, *engine.there, *self._alphas]
            found = torch.autograd.grad(retention, targets, retain_graph=self._keep, allow_unused=True)
            outer, rest = found[:count], list[Tensor | None](found[2 * count :])
            ahead = filled(found[count : 2 * count], engine.theta)
            if self._detached:
                through, rest = self._through_step(engine, ahead)
                meta = plus(outer, through)
            else:
                meta = filled(outer, engine.theta)
        acquired = filled(self._acquired, engine.theta)
        self.alignment = cosine(acquired, ahead)
        self.alpha_gradient = tuple(weight * g for g in filled(rest, self._alphas))
        base = acquired if acquisition else filled([None] * count, engine.theta)
        total = tuple(g.add(m, alpha=weight) for g, m in zip(base, meta, strict=True))
        self._require_sane(get_total_norm(total), "gradient norm")
        return total

    @property
    def _detached(self) -> bool:
        return self.settings.order == 1 or self._curvature is not None

    def _through_step(self, engine: Engine, ahead: Sequence[Tensor]) -> tuple[Sequence[Tensor], list[Tensor | None]]:
        """∇L_ret(θ') carried from the leaf θ' back to θ and α, H left out (order 1) or stood in for."""
        if self.settings.order == 1 and not self._alphas:
            return ahead, []
        theta, given, moved = engine.step or engine.inner_step(self._acquired)
        if self._curvature is None:
            return ahead, list(torch.autograd.grad(moved, self._alphas, ahead, allow_unused=True))
        present = [gradient for gradient in given if gradient is not None]
        found = torch.autograd.grad(moved, [*theta, *present, *self._alphas], ahead, allow_unused=True)
        split = len(theta) + len(present)
        cotangents = iter(found[len(theta) : split])
        bent = self._hessian_product(engine, [None if g is None else next(cotangents) for g in given])
        return plus(found[: len(theta)], bent), list(found[split:])

    def _hessian_product(self, engine: Engine, vector: Sequence[Tensor | None]) -> list[Tensor]:
        assert self._curvature is not None
        buffers = clones(self._module)

        def forward(*args: Any, **kwargs: Any) -> Any:
            with differentiable(self.settings, 2):
                return swapped(self._module, buffers, args, kwargs)

        gradients = torch.autograd.grad(self._curvature(forward), engine.theta, create_graph=True, allow_unused=True)
        require_twice_differentiable(gradients)
        pairs = [
            (g, v)
            for g, v in zip(gradients, vector, strict=True)
            if g is not None and g.requires_grad and v is not None
        ]
        if not pairs:
            return filled([None] * len(vector), engine.theta)
        outputs, cotangents = zip(*pairs, strict=True)
        return filled(torch.autograd.grad(outputs, engine.theta, cotangents, allow_unused=True), engine.theta)

    def _require_sane(self, value: Tensor, name: str) -> None:
        if not self.settings.check or bool(torch.isfinite(value.detach()).all()):
            return
        present = [gradient for gradient in self._acquired if gradient is not None]
        raise MetaDiverged(
            f"{name} is {float(value.detach()):g} after an inner step of α={self.settings.inner.describe()} "
            f"(acquisition loss {float(self._acquisition or 0):g}, gradient norm "
            f"{float(get_total_norm(present)):g}); lower α, or clip or normalise the inner gradient"
        )
