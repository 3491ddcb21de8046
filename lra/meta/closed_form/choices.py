"""ReLU and max-pooling: once a choice is made they are linear, so each derivative repeats the choice.

PyTorch's own rules give the chosen-from tensor a gradient of zeros, which costs two passes over the batch each time.
"""

from typing import Any

import torch
from torch import Tensor

_masked = torch.ops.aten.threshold_backward.default
_pool = torch.ops.aten.max_pool2d_with_indices.default
_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default


class ReLU(torch.autograd.Function):
    """max(x, 0), as `torch.relu`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Compute max(x, 0)."""
        y = torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> Tensor:
        """Pass on where the output is positive."""
        (y,) = ctx.saved_tensors
        return _masked(outputs[0], y.detach(), 0)


class InPlaceReLU(torch.autograd.Function):
    """The same, overwriting x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Compute max(x, 0) in the memory of x."""
        ctx.mark_dirty(x)
        torch.relu_(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> Tensor:
        """Pass on where the output is positive."""
        (y,) = ctx.saved_tensors
        return _masked(outputs[0], y.detach(), 0)


class MaxPool(torch.autograd.Function):
    """Largest value of each window, as `torch.nn.functional.max_pool2d`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[Any, ...]) -> Tensor:
        """Pool by ``window``: size, stride, padding, dilation and ceil_mode."""
        y, indices = _halve(x) if _halves(x, window) else _pool(x, *window)
        ctx.window = window
        ctx.save_for_backward(x, indices)
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        """Send each gradient to the value that was chosen."""
        x, indices = ctx.saved_tensors
        return _pool_backward(outputs[0], x.detach(), *ctx.window, indices), None


def _halves(x: Tensor, window: tuple[Any, ...]) -> bool:
    size, stride, padding, dilation, _ = window
    # An offset within a window, at most width + 1, is kept in a byte.
    even = x.shape[-1] % 2 == 0 and x.shape[-2] % 2 == 0 and x.shape[-1] < 255
    fits = (size, stride, padding, dilation) == ([2, 2], [2, 2], [0, 0], [1, 1])
    # PyTorch's kernel for this layout takes one value at a time.
    return fits and even and x.device.type == "cpu" and x.is_contiguous()


def _halve(x: Tensor) -> tuple[Tensor, Tensor]:
    """Max-pooling by 2x2 windows, with the flat index of the first largest value in each plane."""
    upper, lower = x[..., ::2, :], x[..., 1::2, :]
    (a, b), (c, d) = ((row[..., ::2], row[..., 1::2]) for row in (upper, lower))
    top, bottom = torch.maximum(a, b), torch.maximum(c, d)
    down, right = bottom > top, b > a
    right ^= down & (right ^ (d > c))
    height, width = x.shape[-2:]
    offset = down.view(torch.uint8).mul_(width).add_(right.view(torch.uint8))
    rows = torch.arange(0, height * width, 2 * width).view(-1, 1)
    return torch.maximum(top, bottom), rows + torch.arange(0, width, 2) + offset
