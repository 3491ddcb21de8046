"""Layers whose weights and inputs are rounded in every forward pass, with the parameter names of what they replace."""

import torch
from torch import Tensor, nn

from lra.quantization.grid import Affine, between, rounded, signed, unsigned

Quantizable = nn.Conv2d | nn.Linear


class InputRounding(nn.Module):
    """Rounds what a layer takes in to b bits between two ends, one pair for the whole tensor.

    While it is ``observing``, each batch moves the ends towards its own extremes, by a moving average whose bias is
    corrected: the first batch sets them. Otherwise they stand.

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
        """Let the next batch observed be the first."""
        self.batches.zero_()

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the ends by one batch."""
        self.batches += 1
        share = (1 - self.momentum) / (1 - self.momentum ** self.batches.item())
        self.low.lerp_(x.min().to(self.low), share)
        self.high.lerp_(x.max().to(self.high), share)

    @property
    def affine(self) -> Affine:
        """The map of the range as it stands."""
        return between(self.low, self.high, unsigned(self.bits))

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        if self.observing:
            self.observe(x)
        return rounded(x, self.affine)

    def extra_repr(self) -> str:
        """The bits."""
        return f"bits={self.bits}"


class WeightRounding(nn.Module):
    """Rounds a weight to b bits between the extremes of each output channel, as they are in this forward pass.

    Args:
        bits: b.
        symmetric: 0 is stored as 0, at the price of range where a channel's extremes differ in size.
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
        """Of the same shape."""
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

    It is not folded into the convolution before it: with a grid of its own for every output channel that would round
    to the same values, each times the same factor.
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
