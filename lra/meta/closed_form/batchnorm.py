"""Batch norm in training mode: its second derivative in closed form, and statistics of one pass used in another.

The second derivative is a few passes over the batch. Per channel, with n values, mean μ, r = 1/sqrt(var + eps),
x̂ = r (x − μ) and y = γ x̂ + β, the first derivatives are

    for x:  γ r (ȳ − G₁ − x̂ G₂)      for γ:  n G₂      for β:  n G₁      with G₁ = mean(ȳ), G₂ = mean(ȳ x̂).

Given cotangents a, p, q of these three, and A₁ = mean(a), A₂ = mean(a x̂), K = mean(a ȳ) − A₁ G₁ − A₂ G₂, their own
derivatives are

    for ȳ:  γ r (a − A₁ − x̂ A₂) + p x̂ + q
    for x:  r s (ȳ − G₁ − x̂ G₂) − γ r² (G₂ (a − A₁ − x̂ A₂) + K x̂)      with s = p − γ r A₂
    for γ:  n r K

Statistics are recorded with their graph by torch-function modes, which see every call of
``torch.nn.functional.batch_norm``, so that no student has to be changed and ``higher``'s copies are covered too. Calls
are matched by their order.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lra.meta.checks import MetaStepError, plain, require_last_derivative

_forward = torch.ops.aten.native_batch_norm.default
_backward = torch.ops.aten.native_batch_norm_backward.default


def _first(gradient: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, r: Tensor, needs: list[bool]) -> Any:
    return _backward(gradient, x, w, None, None, mean, r, True, 0.0, needs)


def _is_by_pixels(x: Tensor) -> bool:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return last and x.device.type == "cpu" and x.dtype == torch.float32


def _by_pixels(
    x: Tensor,
    w: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What ``_forward`` computes, for a channels-last batch.

    PyTorch's kernel sums all pixels one by one in single precision; errors of 1e-5 in the statistics then move
    activations across the kink of ReLU. Sums over the rows of a matrix are pairwise, and a hundred times more accurate.
    """
    n, channels = x.numel() // x.shape[1], x.shape[1]
    pixels = x.permute(0, 2, 3, 1).reshape(n, channels)
    mean = pixels.sum(0) / n
    centred = pixels - mean
    var = centred.square().sum(0) / n
    r = (var + eps).rsqrt()
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * (n / (n - 1))).to(running_var.dtype), momentum)
    scale = r if w is None else w * r
    # A tensor of its own and no view of the rows, so that what follows may overwrite it.
    y = torch.empty_like(x)
    rows = y.permute(0, 2, 3, 1).view(n, channels)
    torch.mul(centred, scale, out=rows) if bias is None else torch.addcmul(bias, centred, scale, out=rows)
    return y, mean, r


class BatchNorm(torch.autograd.Function):
    """Batch norm by the batch's own statistics, as `torch.nn.functional.batch_norm` in training; also returns these."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y, μ and r for x; updates the running statistics, if any."""
        forward = _by_pixels if _is_by_pixels(x) else _forward
        y, mean, r = forward(x, w, bias, running_mean, running_var, True, momentum, eps)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w, mean, r)
        return y, mean, r

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients for x, w and bias, by a function with its own derivatives if a graph is needed."""
        x, w, mean, r = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:3])
        for_y, for_mean, for_r = outputs
        found: tuple[Tensor | None, ...]
        if for_mean is not None or for_r is not None:
            require_last_derivative()
            for_y = torch.zeros_like(x) if for_y is None else for_y
            found = _through_moments(for_y, for_mean, for_r, x, w, mean, r)
        elif for_y is None:
            found = (None, None, None)
        elif torch.is_grad_enabled():
            found = _BatchNormBackward.apply(for_y, x, w, mean, r)
        else:
            return *_first(for_y, x, w, mean, r, needs), None, None, None, None
        return *(g if need else None for g, need in zip(found, needs, strict=True)), None, None, None, None


class _BatchNormBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, r: Tensor) -> Any:
        for_x, for_w, for_bias = _first(gradient, x, w, mean, r, [True, True, True])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradient, x, w, mean, r, for_w, for_bias)
        return for_x, for_w, for_bias

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, p: Tensor | None, q: Tensor | None) -> tuple[Tensor | None, ...]:
        require_last_derivative()
        gradient, x, w, mean, r, for_w, for_bias = ctx.saved_tensors
        shape = [1, -1] + [1] * (x.dim() - 2)
        n = x.numel() // x.shape[1]
        g1, g2 = for_bias / n, for_w / n
        scale = r if w is None else w * r
        zero = torch.zeros_like(r)
        p, q = zero if p is None else p, zero if q is None else q
        if a is None:
            out = _affine(x, mean, r, p, q)
            for_x = _affine(x, mean, r, -r * p * g2, -r * p * g1).addcmul_(gradient, (r * p).view(shape))
            return out, for_x, None, None, None
        _, a2, a1 = _first(a, x, w, mean, r, [False, True, True])
        a1, a2 = a1 / n, a2 / n
        # Σ a (ȳ − G₁): the same kernel, with ȳ in the place of x.
        _, k, _ = _first(a, gradient, w, g1, torch.ones_like(r), [False, True, False])
        k = k / n - a2 * g2
        s = r * (p - scale * a2)
        u = scale * r * g2
        out = _affine(x, mean, r, p - scale * a2, q - scale * a1).addcmul_(a, scale.view(shape))
        for_x = _affine(x, mean, r, u * a2 - s * g2 - scale * r * k, u * a1 - s * g1)
        for_x.addcmul_(gradient, s.view(shape)).addcmul_(a, u.neg().view(shape))
        return out, for_x, None if w is None else n * r * k, None, None


def _through_moments(
    for_y: Tensor, for_mean: Tensor | None, for_r: Tensor | None, x: Tensor, w: Tensor | None, mean: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The first derivatives where μ and r are used elsewhere too: dμ = dx / n and dr = -r² x̂ dx / n, for each x."""
    _, for_w, for_bias = _first(for_y, x, w, mean, r, [False, True, True])
    n, scale = x.numel() // x.shape[1], r if w is None else w * r
    factor, shift = -scale * for_w, -scale * for_bias
    if for_r is not None:
        factor = factor - for_r * r.square()
    if for_mean is not None:
        shift = shift + for_mean
    for_x = _affine(x, mean, r, factor / n, shift / n)
    return for_x.addcmul_(for_y, scale.view([1, -1] + [1] * (x.dim() - 2))), for_w, for_bias


def _affine(x: Tensor, mean: Tensor, r: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """factor · x̂ + shift per channel, in one pass."""
    return torch.batch_norm(x, factor, shift, mean, r.pow(-2), False, 0.0, 0.0, False)


def batch_norm_with_moments(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """``torch.nn.functional.batch_norm``'s result, the mean and 1/sqrt(var + eps); ``None`` if no rule covers it."""
    covered = training and eps > 0 and input.dim() >= 2 and input.numel() > input.shape[1]
    if not covered or not plain(input, weight, bias):
        return None
    return BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)


_SIGNATURE = signature(F.batch_norm)


class Moments(NamedTuple):
    """Mean and variance of the input of one batch norm, per channel: each (channels,), with its graph."""

    mean: Tensor
    inverse: Tensor
    """1 / sqrt(variance + eps), with the biased variance."""


@contextmanager
def recording(moments: list[Moments], rules: bool) -> Iterator[None]:
    """A context that records the moments of every training-mode batch norm; with ``rules``, by closed forms."""
    with _Recording(moments, rules):
        yield


@contextmanager
def normalised_by(moments: Sequence[Moments]) -> Iterator[None]:
    """A context in which training-mode batch norms use recorded moments, in order, and update nothing.

    Raises:
        MetaStepError: if there are more of them than were recorded.
    """
    with _Recorded(moments):
        yield


class _Recording(TorchFunctionMode):
    def __init__(self, moments: list[Moments], rules: bool) -> None:
        super().__init__()
        self._moments = moments
        self._rules = rules

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm or not (call := _call(*args, **kwargs)).training:
            return func(*args, **kwargs)
        found = batch_norm_with_moments(*args, **kwargs) if self._rules else None
        if found is None:
            axes = [axis for axis in range(call.input.dim()) if axis != 1]
            single = torch.promote_types(call.input.dtype, torch.float32)
            variance, mean = torch.var_mean(call.input.to(single), axes, correction=0)
            found = func(*args, **kwargs), mean, (variance + call.eps).rsqrt()
        output, mean, inverse = found
        self._moments.append(Moments(mean, inverse))
        return output


class _Recorded(TorchFunctionMode):
    def __init__(self, moments: Sequence[Moments]) -> None:
        super().__init__()
        self._moments = iter(moments)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.batch_norm or not (call := _call(*args, **(kwargs or {}))).training:
            return func(*args, **(kwargs or {}))
        found = next(self._moments, None)
        if found is None:
            raise MetaStepError(
                "the pass at θ' has more batch norms than the one at θ; compute the acquisition loss from "
                "look.student(x), or use statistics='batch'"
            )
        shape = [1, -1] + [1] * (call.input.dim() - 2)
        scale = found.inverse if call.weight is None else call.weight * found.inverse
        centred = (call.input - found.mean.view(shape)) * scale.view(shape)
        return centred if call.bias is None else centred + call.bias.view(shape)


def _call(*args: Any, **kwargs: Any) -> SimpleNamespace:
    """The arguments of a call to ``torch.nn.functional.batch_norm``, by name."""
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    return SimpleNamespace(**bound.arguments)
