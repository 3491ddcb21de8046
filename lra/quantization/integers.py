"""A quantised network as it is handed on: weights as integers, and quantise/dequantise operators around layers.

The operators are those of PyTorch's exported quantised programs (``quantized_decomposed``), which ONNX knows as
QuantizeLinear and DequantizeLinear. Layers still compute in floats, on the values the integers stand for: how fast
that runs is up to whoever loads it.
"""

import copy

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor, nn

from lra.quantization.layers import Affine, QuantizedConv2d, QuantizedLinear, stored
from lra.quantization.network import Network

_ops = torch.ops.quantized_decomposed


class _Stored(nn.Module):
    """An affine map with its numbers as buffers: ``scale`` float32, ``zero`` of the integers' type."""

    scale: Tensor
    zero: Tensor

    def __init__(self, affine: Affine, kind: torch.dtype):
        super().__init__()
        self.register_buffer("scale", affine.scale.clone())
        self.register_buffer("zero", affine.zero.to(kind))
        self.grid, self.kind = affine.grid, kind


class InputBytes(_Stored):
    """Clips a tensor to the range of its integers, stores it as bytes and reads it again."""

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; the result has its shape."""
        scale, zero, ends = self.scale, self.zero.to(torch.int32), tuple(self.grid)
        # ONNX knows whole bytes only, which would let an integer above 2^b - 1 pass.
        x = x.clamp((ends[0] - zero) * scale, (ends[1] - zero) * scale)
        q = _ops.quantize_per_tensor.tensor(x, scale, zero, *ends, self.kind)
        return _ops.dequantize_per_tensor.tensor(q, scale, zero, *ends, self.kind)


class StoredWeight(_Stored):
    """Reads a weight (out, ...) stored as integers, with a scale an output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """float32, of the same shape."""
        return _ops.dequantize_per_channel(weight, self.scale, self.zero.to(torch.int32), 0, *self.grid, self.kind)


def in_integers(network: Network) -> Network:
    """A copy of a quantised network that holds its weights as int8 and computes the same.

    State of each layer: ``weight`` int8, ``weights.scale`` and ``weights.zero`` (out,), ``inputs.scale`` and
    ``inputs.zero`` (), ``bias`` float32; a real is (integer - zero)·scale. Everything else is as it was.
    """
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, QuantizedConv2d | QuantizedLinear):
            affine = layer.weights.affine(layer.weight)
            whole = stored(layer.weight.detach(), affine).to(torch.int8)
            layer.add_module("inputs", InputBytes(layer.inputs.affine, torch.uint8))
            layer.add_module("weights", StoredWeight(affine, torch.int8))
            layer.weight = nn.Parameter(whole, requires_grad=False)
    return network.eval()
