"""The two doors to a meta step: a session around the caller's own passes, and a single call."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from lra.meta.inner import InnerRule
from lra.meta.session import Curvature, Forward, LookAhead
from lra.meta.settings import AheadStatistics, BatchNormPolicy, EngineName, Order, Settings


def lookahead(
    student: nn.Module,
    inner: InnerRule,
    engine: EngineName = "lean",
    order: Order = 2,
    batchnorm: BatchNormPolicy = "acquisition",
    ahead_statistics: AheadStatistics = "batch",
    rules: bool = True,
    check: bool = True,
) -> LookAhead:
    """Open one meta step on ``student``; nothing of the student changes but its buffers, by the policy.

    Args:
        student: in the mode it should train in. Parameters without ``requires_grad`` stay out of the step.
        inner: α and the rule that makes θ': `InnerSGD`, `InnerAdam` or `inner_from`.
        engine: ``"lean"``, or the reference ``"higher"``; the same gradients and buffers.
        order: 2 for the gradient of the objective; 1 drops the inner step's derivative (H, weight decay).
        batchnorm: which forward passes move the student's buffers: that of the ``"acquisition"`` batch,
            ``"both"`` (the retention batch at θ' next), or ``"none"``.
        ahead_statistics: what batch-norm layers normalise by at θ': the mean and variance of their own ``"batch"``;
            those of the latest pass at θ, of the ``"acquisition"``, through which retention's gradient then also
            flows; or the ``"running"`` ones.
        rules: closed-form second derivatives of convolution and batch norm in place of PyTorch's generic
            ones: the same values in less time.
        check: refuse losses and gradients that are not finite; on a GPU this waits for it, three times a step.

    Returns:
        A context manager::

            with lookahead(student, InnerSGD(0.01)) as look:
                acquisition = criterion(look.student(x_new), t_new)
                look.advance(acquisition)
                retention = criterion(look.ahead(x_old), t_old)
                gradients = look.gradient(retention)

    Raises:
        MetaStepError: a student this engine cannot differentiate, with the reason.
        ValueError: a setting that is not one of its values.
    """
    settings = Settings(inner, engine, order, batchnorm, ahead_statistics, rules, check)
    return LookAhead(student, settings)


class MetaStep(NamedTuple):
    """What one step found.

    Attributes:
        acquisition: L_acq(θ), a detached scalar.
        retention: L_ret(θ'), a detached scalar.
        gradients: g + w ∇_θ L_ret(θ'), one for each trainable parameter.
        alignment: cosine of ∇L_acq(θ) and ∇L_ret at θ', a scalar in [-1, 1].
        alpha_gradient: the same objective's gradient for each of ``inner.learnable()``.
    """

    acquisition: Tensor
    retention: Tensor
    gradients: tuple[Tensor, ...]
    alignment: Tensor
    alpha_gradient: tuple[Tensor, ...]


def lra_step(
    student: nn.Module,
    acquisition: Callable[[Forward], Tensor],
    retention: Callable[[Forward], Tensor],
    *,
    inner: InnerRule,
    engine: EngineName = "lean",
    order: Order = 2,
    weight: float = 1.0,
    batchnorm: BatchNormPolicy = "acquisition",
    ahead_statistics: AheadStatistics = "batch",
    rules: bool = True,
    check: bool = True,
    curvature: Curvature | None = None,
) -> MetaStep:
    """One meta step in one call; the student's parameters and their ``.grad`` are left alone.

    Args:
        student: see `lookahead`, as for all arguments not named here.
        acquisition: given a forward pass, the scalar acquisition loss.
        retention: given a forward pass, the scalar retention loss.
        weight: w of the retention term.
        curvature: see `LookAhead.advance`.

    Returns:
        losses, gradients and alignment.

    Raises:
        MetaStepError: the step cannot be taken, with the reason.
        ValueError: a setting that is not one of its values.
    """
    with lookahead(student, inner, engine, order, batchnorm, ahead_statistics, rules, check) as look:
        acquired = acquisition(look.student)
        look.advance(acquired, curvature)
        retained = retention(look.ahead)
        gradients = look.gradient(retained, weight)
    assert look.alignment is not None
    return MetaStep(acquired.detach(), retained.detach(), gradients, look.alignment, look.alpha_gradient)
