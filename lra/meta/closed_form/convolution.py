"""Convolution whose second derivative consists of ordinary convolutions.

With y = x * w the first derivatives are X(ȳ, w) for x and W(ȳ, x) for w, each linear in both arguments. Given
cotangents a of X(ȳ, w), p of W(ȳ, x) and q of the bias gradient, the derivatives of these are

    for ȳ:  a * w + x * p + q        for x:  X(ȳ, p)        for w:  W(ȳ, a)

PyTorch's own rule computes the last two by transposed convolutions with swapped axes, and the one for x even where it
is not needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lra.meta.checks import require_last_derivative

_backward = torch.ops.aten.convolution_backward.default


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation for each spatial axis, and the number of groups."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    def forward(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """x * w + bias."""
        return torch.convolution(
            x, w, bias, self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups
        )

    def backward(self, gradient: Tensor, x: Tensor, w: Tensor, needs: Sequence[bool]) -> Any:
        """X(gradient, w), W(gradient, x) and the bias gradient; None where not needed."""
        for_x: Tensor | None = None
        if needs[0] and self._turns(gradient, x, w):
            for_x = self._turned(gradient, w)
            needs = (False, *needs[1:])
        if not any(needs):
            return for_x, None, None
        rest = (self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups)
        found = _backward(gradient, x, w, [w.shape[0]], *rest, list(needs))
        return (found[0] if for_x is None else for_x), *found[1:]

    def _turns(self, gradient: Tensor, x: Tensor, w: Tensor) -> bool:
        """Whether X(ȳ, w) is faster as the convolution of ȳ with w turned around: oneDNN, few channels."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, w.shape[2:], strict=True)]
        return (
            torch.backends.mkldnn.is_available()
            and gradient.device.type == "cpu"
            and gradient.dtype == torch.float32
            and gradient.dim() == 4
            and gradient.is_contiguous()
            and max(w.shape[:2]) < 16
            # The turned one also multiplies the padding.
            and x[0, 0].numel() <= 3 * gradient[0, 0].numel()
            and self.groups == 1
            and all(s == 1 for s in self.stride)
            and all(p <= r for p, r in zip(self.padding, reach, strict=True))
        )

    def _turned(self, gradient: Tensor, w: Tensor) -> Tensor:
        reach = [d * (k - 1) for d, k in zip(self.dilation, w.shape[2:], strict=True)]
        padding = [r - p for r, p in zip(reach, self.padding, strict=True)]
        turned = w.flip(2, 3).transpose(0, 1).contiguous()
        return torch.convolution(
            gradient, turned, None, self.stride, padding, self.dilation, False, [0, 0], self.groups
        )


class Convolution(torch.autograd.Function):
    """x * w + bias, as `torch.convolution`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        """Compute x * w + bias."""
        ctx.geometry = geometry
        ctx.save_for_backward(x, w)
        return geometry.forward(x, w, bias)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients for x, w and bias, by a function with its own derivatives if a graph is needed."""
        x, w = ctx.saved_tensors
        needs = tuple(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled():
            return *_ConvolutionBackward.apply(outputs[0], x, w, ctx.geometry, needs), None
        return *ctx.geometry.backward(outputs[0], x, w, needs), None


class _ConvolutionBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, w: Tensor, geometry: Geometry, needs: Any) -> Any:
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradient, x, w)
        return geometry.backward(gradient, x, w, needs)

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, p: Tensor | None, q: Tensor | None) -> tuple[Tensor | None, ...]:
        require_last_derivative()
        gradient, x, w = ctx.saved_tensors
        needs_gradient, needs_x, needs_w = ctx.needs_input_grad[:3]
        out: Tensor | None = None
        if needs_gradient:
            out = _sum_of_convolutions(ctx.geometry, a, x, w, p, q)
        needs = (needs_x and p is not None, needs_w and a is not None, False)
        for_x: Tensor | None = None
        for_w: Tensor | None = None
        if any(needs):
            # The arguments a mask leaves out only lend their shape.
            for_x, for_w, _ = ctx.geometry.backward(gradient, x if a is None else a, w if p is None else p, needs)
        return out, for_x, for_w, None, None


def _sum_of_convolutions(
    geometry: Geometry, a: Tensor | None, x: Tensor, w: Tensor, p: Tensor | None, q: Tensor | None
) -> Tensor | None:
    """a * w + x * p + q, of the terms that are present."""
    if p is not None and a is not None and geometry.groups == 1 and _runs_contiguous(x):
        # One convolution of twice the channels is faster than two and their sum where channels are few.
        return geometry.forward(torch.cat([a, x], dim=1), torch.cat([w, p], dim=1), q)
    if p is not None:
        out = geometry.forward(x, p, q)
        return out if a is None else out.add_(geometry.forward(a, w, None))
    if a is not None:
        return geometry.forward(a, w, q)
    return None if q is None else geometry.forward(x, torch.zeros_like(w), q)


def _runs_contiguous(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dim() == 4 and x.is_contiguous() and x.shape[1] < 16
