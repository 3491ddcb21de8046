"""What a quantised network would take to store."""

from typing import Any

from torch import nn

from lra.quantization.layers import QuantizedConv2d, QuantizedLinear

FLOAT = 32
SCALE = FLOAT + 8
"""Bits of a scale and its zero."""


def size(network: nn.Module) -> dict[str, Any]:
    """Bytes of a quantised network with b bits a rounded weight, and all else that must be stored beside them.

    Returns:
        ``bytes`` of everything (weights as few bits as they have, a scale and a zero for each output channel and each
        input, biases and BatchNorm as floats), ``bytes_full_precision`` of the network it is a copy of, and
        ``bits_per_weight``: ``bytes``, in bits, over the number of parameters.
    """
    layers = [m for m in network.modules() if isinstance(m, QuantizedConv2d | QuantizedLinear)]
    # What layers share is stored once.
    layers = list({id(layer.weight): layer for layer in layers}.values())
    rounded = sum(layer.weight.numel() for layer in layers)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    ranges = {id(buffer) for layer in layers for buffer in layer.inputs.buffers()}
    statistics = sum(b.numel() for b in network.buffers() if id(b) not in ranges and b.is_floating_point())
    bits = sum(layer.weight.numel() * layer.weights.bits + SCALE * (len(layer.weight) + 1) for layer in layers)
    bits += FLOAT * (parameters - rounded + statistics)
    return {
        "bytes": -(-bits // 8),
        "bytes_full_precision": 4 * (parameters + statistics),
        "bits_per_weight": bits / parameters,
    }
