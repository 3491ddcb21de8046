"""The values that b bits can represent, and rounding to them with a straight-through gradient.

A real x is stored as the integer q = clamp(round(x / scale) + zero, low, high) and stands for (q - zero)·scale, so
that 0 is represented exactly. The gradient passes unchanged where x is within range, and is 0 where it is clipped.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """The integers that are stored, ends included."""

    low: int
    high: int

    @property
    def levels(self) -> int:
        """How many there are."""
        return self.high - self.low + 1


def signed(bits: int, symmetric: bool = False) -> Grid:
    """-2^(b-1) … 2^(b-1) - 1; ``symmetric`` leaves out the lowest, so that the grid is its own mirror image."""
    half = 2 ** (bits - 1)
    return Grid(-half + symmetric, half - 1)


def unsigned(bits: int) -> Grid:
    """0 … 2^b - 1."""
    return Grid(0, 2**bits - 1)


class Affine(NamedTuple):
    """How stored integers become reals: (q - zero)·scale."""

    scale: Tensor
    """> 0, () or one a channel, float32."""
    zero: Tensor
    """The integer that stands for 0, int32, of the same shape."""
    grid: Grid


def between(low: Tensor, high: Tensor, grid: Grid, symmetric: bool = False) -> Affine:
    """The affine map whose grid just covers [low, high] and 0.

    Args:
        low: () or one a channel.
        high: of the same shape.
        grid: of the integers.
        symmetric: 0 is stored as 0; otherwise it is wherever the range needs it.
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
    """The representable value nearest to each x, straight-through; a scale a channel acts along dimension 0."""
    scale, zero, (low, high) = affine
    if scale.dim():
        return torch.fake_quantize_per_channel_affine(x, scale, zero, 0, low, high)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


def stored(x: Tensor, affine: Affine) -> Tensor:
    """The integers that stand for x, int32; as `rounded` rounds."""
    scale, zero, (low, high) = affine
    shape = (-1,) + (1,) * (x.dim() - 1) if scale.dim() else ()
    # As in torch's kernels: times the reciprocal.
    steps = torch.round(x * (1 / scale).view(shape)).to(torch.int32)
    return (steps + zero.view(shape)).clamp(low, high)
