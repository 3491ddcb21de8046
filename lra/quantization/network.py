"""Quantise a network, calibrate the ranges of its layers' inputs, measure its size, and convert it to integers."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lra.networks.small_images import CoveringConvolution
from lra.options import Precision
from lra.quantization.layers import (
    Affine,
    FrozenBatchNorm2d,
    InputRounding,
    Quantizable,
    QuantizedConv2d,
    QuantizedLinear,
    WeightRounding,
    stored,
)
from lra.state import in_mode

IMAGE_BITS = 8
"""Bits of the first layer's input: images are bytes."""

FLOAT = 32
SCALE = FLOAT + 8
"""Bits of a scale and its zero."""

Network = TypeVar("Network", bound=nn.Module)


class Unquantizable(ValueError):
    """The network has a layer that cannot be quantised."""


def quantized(network: Network, precision: Precision) -> Network:
    """A copy of ``network`` whose convolutions and linear layers round, and whose BatchNorm is frozen.

    Parameters keep their names; ``network`` must contain layers, not be one itself. Ranges must then be set with
    `calibrate`. The first and last layers are those in order of registration.

    A weight that is computed from others in every pass (weight norm, spectral norm) is taken at its current value.

    Raises:
        Unquantizable: naming the first layer of any other kind that has parameters.
    """
    network = copy.deepcopy(network)
    _settle(network)
    layers = [module for module in network.modules() if isinstance(module, Quantizable)]
    if not layers:
        raise Unquantizable(f"{type(network).__name__} has no Conv2d or Linear layer to quantise")
    first, last = layers[0], layers[-1]
    new = {
        module: _rounding(name, module, precision, is_first=module is first, is_edge=module in (first, last))
        for name, module in network.named_modules()
    }
    for module in new:
        # Not named_children(), which gives a shared child under its first name only.
        for name, child in module._modules.items():
            if child is not None and (other := new[child]) is not None:
                setattr(module, name, other)
    return network


def _rounding(name: str, module: nn.Module, precision: Precision, is_first: bool, is_edge: bool) -> nn.Module | None:
    """The replacement of ``module``, if there is one."""
    edge = precision.edge_bits if is_edge else None
    weights = WeightRounding(edge or precision.weight_bits, precision.symmetric)
    inputs = InputRounding(IMAGE_BITS if is_first else edge or precision.activation_bits)
    # Other subclasses may do anything in their forward.
    if isinstance(module, nn.Conv2d) and type(module) in (nn.Conv2d, CoveringConvolution):
        return QuantizedConv2d(module, weights, inputs)
    if type(module) is nn.Linear:
        return QuantizedLinear(module, weights, inputs)
    if type(module) is nn.BatchNorm2d and module.running_mean is not None:
        return FrozenBatchNorm2d(module)
    if isinstance(module, _BatchNorm) or next(module.parameters(recurse=False), None) is not None:
        raise Unquantizable(f"layer {name!r} ({type(module).__name__}) cannot be quantised: {_hindrance(module)}")
    return None


def _hindrance(module: nn.Module) -> str:
    known = next((kind for kind in (nn.Conv2d, nn.Linear, nn.BatchNorm2d) if isinstance(module, kind)), None)
    if type(module) is nn.BatchNorm2d:
        return "it keeps no running statistics to be frozen to (track_running_stats=False)"
    if known is not None:
        return f"it is a {known.__name__} that may compute otherwise in its own forward; use {known.__name__} itself"
    return "layers with parameters have to be Conv2d, Linear or BatchNorm2d"


def _settle(network: nn.Module) -> None:
    """Replace weights that are computed from others by plain ones, with their values in evaluation mode."""
    with in_mode(network, training=False):
        for module in list(network.modules()):
            computed = getattr(module, "parametrizations", None)
            if isinstance(computed, nn.ModuleDict):
                values = {name: getattr(module, name).detach().clone() for name in computed}
                # Not remove_parametrizations, which works on the class, and that is the original's too.
                module.__class__ = type(module).__bases__[0]
                del module.parametrizations
                for name, value in values.items():
                    module.register_parameter(name, nn.Parameter(value))
            for hook in list(module._forward_pre_hooks.values()):
                if isinstance(hook, WeightNorm):
                    remove_weight_norm(module, hook.name)
                elif isinstance(hook, SpectralNorm):
                    remove_spectral_norm(module, hook.name)


def roundings(network: nn.Module) -> list[InputRounding]:
    """The roundings of a quantised network's inputs, in order of registration."""
    return [module for module in network.modules() if isinstance(module, InputRounding)]


@contextmanager
def observing(network: nn.Module) -> Iterator[None]:
    """A context in which every batch that passes updates the ranges."""
    for rounding in roundings(network):
        rounding.observing = True
    try:
        yield
    finally:
        for rounding in roundings(network):
            rounding.observing = False


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[Tensor], anew: bool = True) -> None:
    """Set the ranges of a quantised network from batches of images, which pass through layers that already round.

    One batch gives min-max ranges; several give moving averages of them.

    Args:
        network: from `quantized`, alone or inside another network.
        batches: of images as the network takes them.
        anew: forget the current ranges, rather than update them.
    """
    for rounding in roundings(network) if anew else ():
        rounding.forget()
    with observing(network), in_mode(network, training=False):
        for batch in batches:
            network(batch)


def size(network: nn.Module) -> dict[str, Any]:
    """The size of a quantised network, with b bits per rounded weight and everything else that must be stored.

    Returns:
        ``bytes`` of everything (weights in their own bits, a scale and a zero for each output channel and each input,
        biases and BatchNorm as floats), ``bytes_full_precision`` of the original network, and ``bits_per_weight``:
        ``bytes``, in bits, divided by the number of parameters.
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


class _Stored(nn.Module):
    """An affine map with buffers ``scale``, float32, and ``zero``, of the integers' type."""

    scale: Tensor
    zero: Tensor

    def __init__(self, affine: Affine, kind: torch.dtype):
        super().__init__()
        self.register_buffer("scale", affine.scale.clone())
        self.register_buffer("zero", affine.zero.to(kind))
        self.grid, self.kind = affine.grid, kind


class InputBytes(_Stored):
    """Clips a tensor to the range of its integers, stores it as bytes and dequantises it."""

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; the result has its shape."""
        scale, zero, ends = self.scale, self.zero.to(torch.int32), tuple(self.grid)
        # ONNX knows whole bytes only, which would let an integer above 2^b - 1 pass.
        x = x.clamp((ends[0] - zero) * scale, (ends[1] - zero) * scale)
        q = torch.ops.quantized_decomposed.quantize_per_tensor.tensor(x, scale, zero, *ends, self.kind)
        return torch.ops.quantized_decomposed.dequantize_per_tensor.tensor(q, scale, zero, *ends, self.kind)


class StoredWeight(_Stored):
    """Dequantises a weight (out, ...) stored as integers, with one scale per output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """float32, of the same shape."""
        return torch.ops.quantized_decomposed.dequantize_per_channel(
            weight, self.scale, self.zero.to(torch.int32), 0, *self.grid, self.kind
        )


def in_integers(network: Network) -> Network:
    """A copy of a quantised network that holds its weights as int8 and computes the same.

    State of each layer: ``weight`` int8, ``weights.scale`` and ``weights.zero`` (out,), ``inputs.scale`` and
    ``inputs.zero`` (), ``bias`` float32; a real is (integer - zero)·scale. Everything else is unchanged.

    They use the operators of PyTorch's exported quantised programs (``quantized_decomposed``), which are QuantizeLinear
    and DequantizeLinear in ONNX. Layers still compute in floats, on the values that the integers represent: how fast
    that runs depends on the runtime that loads it.
    """
    import torch.ao.quantization.fx._decomposed  # which registers them

    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, QuantizedConv2d | QuantizedLinear):
            affine = layer.weights.affine(layer.weight)
            whole = stored(layer.weight.detach(), affine).to(torch.int8)
            layer.add_module("inputs", InputBytes(layer.inputs.affine, torch.uint8))
            layer.add_module("weights", StoredWeight(affine, torch.int8))
            layer.weight = nn.Parameter(whole, requires_grad=False)
    return network.eval()
