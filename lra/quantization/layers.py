"""Layers whose weights and inputs are rounded in every forward pass, with the parameter names of those they replace.

A real x is stored as the integer q = clamp(round(x / scale) + zero, low, high), which represents (q - zero)·scale, so
that 0 is exact. The gradient passes unchanged where x is within range, and is 0 where it is clipped.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Grid(NamedTuple):
    """The integers that are stored, ends included."""

    low: int
    high: int

    @property
    def levels(self) -> int:
        """The number of integers."""
        return self.high - self.low + 1


def signed(bits: int, symmetric: bool = False) -> Grid:
    """-2^(b-1) … 2^(b-1) - 1; ``symmetric`` leaves out the lowest, so that the grid is symmetric about 0."""
    half = 2 ** (bits - 1)
    return Grid(-half + symmetric, half - 1)


def unsigned(bits: int) -> Grid:
    """0 … 2^b - 1."""
    return Grid(0, 2**bits - 1)


class Affine(NamedTuple):
    """How stored integers become reals: (q - zero)·scale."""

    scale: Tensor
    """> 0, () or one per channel, float32."""
    zero: Tensor
    """The integer that represents 0, int32, of the same shape."""
    grid: Grid


def between(low: Tensor, high: Tensor, grid: Grid, symmetric: bool = False) -> Affine:
    """The affine map whose grid just covers [low, high] and 0.

    Args:
        low: () or one per channel.
        high: of the same shape.
        grid: of the integers.
        symmetric: store 0 as 0; otherwise its integer depends on the range.
    """
    low, high = low.clamp_max(0).float(), high.clamp_min(0).float()
    tiny = torch.finfo(torch.float32).eps
    if symmetric:
        scale = (torch.maximum(-low, high) / grid.high).clamp_min(tiny)
        return Affine(scale, torch.zeros_like(scale, dtype=torch.int32), grid)
    scale = ((high - low) / (grid.levels - 1)).clamp_min(tiny)
    zero = (grid.low - low / scale).round().clamp(grid.low, grid.high)
    return Affine(scale, zero.to(torch.int32), grid)


def rounded(x: Tensor, affine: Affine) -> Tensor:
    """The representable value nearest to each x, straight-through; per-channel scales apply along dimension 0."""
    scale, zero, (low, high) = affine
    if scale.dim():
        return torch.fake_quantize_per_channel_affine(x, scale, zero, 0, low, high)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


def stored(x: Tensor, affine: Affine) -> Tensor:
    """The integers that represent x, int32; rounded as by `rounded`."""
    scale, zero, (low, high) = affine
    shape = (-1,) + (1,) * (x.dim() - 1) if scale.dim() else ()
    # As in torch's kernels: times the reciprocal.
    steps = torch.round(x * (1 / scale).view(shape)).to(torch.int32)
    return (steps + zero.view(shape)).clamp(low, high)


Quantizable = nn.Conv2d | nn.Linear


class InputRounding(nn.Module):
    """Rounds a layer's input to b bits between two ends, one pair for the whole tensor.

    While it is ``observing``, each batch moves the ends towards its own extremes, by a bias-corrected moving average:
    the first batch sets them. Otherwise they do not change.

    Args:
        bits: b.
        momentum: β of the moving average.
    """

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self, bits: int, momentum: float = 0.9):
        super().__init__()
        self.bits, self.momentum = bits, momentum
        self.observing = False
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forget(self) -> None:
        """Forget the range, so that the next batch observed sets it."""
        self.batches.zero_()

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Update the ends with one batch."""
        self.batches += 1
        share = (1 - self.momentum) / (1 - self.momentum ** self.batches.item())
        self.low.lerp_(x.min().to(self.low), share)
        self.high.lerp_(x.max().to(self.high), share)

    @property
    def affine(self) -> Affine:
        """The map for the current range."""
        return between(self.low, self.high, unsigned(self.bits))

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; the result has its shape."""
        if self.observing:
            self.observe(x)
        return rounded(x, self.affine)

    def extra_repr(self) -> str:
        """The bits."""
        return f"bits={self.bits}"


class WeightRounding(nn.Module):
    """Rounds a weight to b bits between the current extremes of each output channel.

    Args:
        bits: b.
        symmetric: store 0 as 0, which wastes range where a channel's extremes differ in size.
    """

    def __init__(self, bits: int, symmetric: bool = False):
        super().__init__()
        self.bits, self.symmetric = bits, symmetric

    @torch.no_grad()
    def affine(self, weight: Tensor) -> Affine:
        """The map of each output channel of a weight (out, ...)."""
        low, high = weight.flatten(1).aminmax(dim=1)
        return between(low, high, signed(self.bits, self.symmetric), self.symmetric)

    def forward(self, weight: Tensor) -> Tensor:
        """Round a tensor; the result has its shape."""
        return rounded(weight, self.affine(weight))

    def extra_repr(self) -> str:
        """The bits."""
        return f"bits={self.bits}, symmetric={self.symmetric}"


class QuantizedConv2d(nn.Conv2d):
    """A convolution of rounded inputs with a rounded weight; bias and sum stay floats."""

    def __init__(self, layer: nn.Conv2d, weights: WeightRounding, inputs: InputRounding):
        """Take over the parameters of ``layer``."""
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
            device="meta",
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.weights, self.inputs = weights, inputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, C', H', W')."""
        return self._conv_forward(self.inputs(x), self.weights(self.weight), self.bias)


class QuantizedLinear(nn.Linear):
    """A linear layer of rounded inputs with a rounded weight; bias and sum stay floats."""

    def __init__(self, layer: nn.Linear, weights: WeightRounding, inputs: InputRounding):
        """Take over the parameters of ``layer``."""
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.weights, self.inputs = weights, inputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, in) -> (n, out)."""
        return nn.functional.linear(self.inputs(x), self.weights(self.weight), self.bias)


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that always normalises by the statistics it was given; its scale and shift may learn.

    It is not folded into the convolution before it: with one grid per output channel, folding would give the same
    rounded values times a factor.
    """

    def __init__(self, layer: nn.BatchNorm2d):
        """Take over parameters and statistics of ``layer``."""
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stay in evaluation mode."""
        return super().train(False)
