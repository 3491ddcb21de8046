"""Closed-form second derivatives, used for everything that runs inside `closed_form`.

A torch-function mode sees every call of the public API, so that any module, and ``higher``'s copies, benefit without
being changed. A call that the rules do not cover goes to PyTorch unchanged, with PyTorch's own exact derivatives.

ReLU and max-pooling select; once the selection is made they are linear, so that each derivative repeats it. PyTorch's
own rules give the tensor selected from a gradient of zeros, which costs two passes over the batch each time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lra.meta.checks import FULL, plain
from lra.meta.closed_form.batchnorm import batch_norm_with_moments
from lra.meta.closed_form.convolution import Convolution, Geometry

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
    """ReLU that overwrites its input x."""

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


_ANY = (*FULL, torch.float16, torch.bfloat16)


def _each(value: Any, axes: int) -> list[int]:
    return [value] * axes if isinstance(value, int) else [int(item) for item in value]


def _better_channels_last(x: Tensor, w: Tensor, groups: int) -> bool:
    """Whether oneDNN is faster on channels-last images over all passes: with many channels, or in the first layer."""
    fits = w.shape[0] % 16 == 0 and (w.shape[1] % 16 == 0 or not x.requires_grad)
    single = x.dim() == 4 and x.device.type == "cpu" and x.dtype == torch.float32
    return fits and groups == 1 and single and torch.backends.mkldnn.is_available()


def _convolution(axes: int) -> Callable[..., Tensor | None]:
    def rule(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        if isinstance(padding, str) or input.dim() != axes + 2:
            return None
        if torch.is_autocast_enabled(input.device.type):
            dtype = torch.get_autocast_dtype(input.device.type)
            input, weight, bias = input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        if not plain(input, weight, bias, dtypes=_ANY):
            return None
        if _better_channels_last(input, weight, groups):
            input = input.contiguous(memory_format=torch.channels_last)
        geometry = Geometry(_each(stride, axes), _each(padding, axes), _each(dilation, axes), groups)
        return Convolution.apply(input, weight, bias, geometry)

    return rule


def _batch_norm(*args: Any, **kwargs: Any) -> Tensor | None:
    found = batch_norm_with_moments(*args, **kwargs)
    return None if found is None else found[0]


def _relu(input: Tensor, inplace: bool = False) -> Tensor | None:
    if not plain(input) or (inplace and (input.is_leaf or input._is_view())):
        return None
    return InPlaceReLU.apply(input) if inplace else ReLU.apply(input)


def _max_pool(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    if return_indices or input.dim() != 4 or not plain(input):
        return None
    size = _each(kernel_size, 2)
    window = (size, _each(stride, 2) if stride else size, _each(padding, 2), _each(dilation, 2), ceil_mode)
    return MaxPool.apply(input, window)


def _view(tensor: Tensor, *shape: Any, **kwargs: Any) -> Tensor:
    try:
        return tensor.view(*shape, **kwargs)
    except RuntimeError:
        # The student wrote this for contiguous images; it is the rules that made them channels-last.
        if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
            return tensor.contiguous().view(*shape, **kwargs)
        raise


_RULES: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    torch.conv1d: _convolution(1),
    torch.conv2d: _convolution(2),
    torch.conv3d: _convolution(3),
    F.batch_norm: _batch_norm,
    F.relu: _relu,
    torch.relu: _relu,
    torch.Tensor.relu: _relu,
    F.max_pool2d: _max_pool,
}


# Fewest values in a batch for which the rules pay on a CPU, by how often it is differentiated.
_LEAST = {1: 2**16, 2: 2**14}


def pays(x: Tensor, times: int, least: int | None = None) -> bool:
    """Whether the time saved covers that of an autograd function written in Python, some 50 microseconds.

    Args:
        x: the input of a rule.
        times: how often it will be differentiated, 1 or 2.
        least: see `closed_form`.
    """
    if x.device.type == "cpu":
        return x.numel() >= (_LEAST[times] if least is None else least)
    return times == 2


class _ClosedForm(TorchFunctionMode):
    def __init__(self, times: int, least: int | None) -> None:
        super().__init__()
        self._times = times
        self._least = least

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.view:
            return _view(*args, **kwargs)
        rule = _RULES.get(func)
        if rule is not None and pays(args[0] if args else kwargs["input"], self._times, self._least):
            found = rule(*args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)


@contextmanager
def closed_form(times: int = 2, least: int | None = None) -> Iterator[None]:
    """A context in which convolution, training-mode batch norm, ReLU and max-pooling use closed-form rules.

    Values and derivatives up to the second equal PyTorch's, except for rounding; a third derivative raises. On a CPU
    the first derivative is faster too (channels-last images inside, better kernels for few channels); elsewhere only
    the second is faster.

    Args:
        times: how often the result will be differentiated, 1 or 2.
        least: on a CPU, leave calls with fewer input values to PyTorch; None for the measured break-even.
    """
    with _ClosedForm(times, least):
        yield
