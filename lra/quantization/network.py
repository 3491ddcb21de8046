"""From a network to its quantised copy, and from samples to the ranges of its layers' inputs."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from lra.options import Options
from lra.preservation import in_mode
from lra.quantization.layers import (
    FrozenBatchNorm2d,
    InputRounding,
    Quantizable,
    QuantizedConv2d,
    QuantizedLinear,
    WeightRounding,
)

IMAGE_BITS = 8
"""Of the first layer's input: images are bytes."""

Network = TypeVar("Network", bound=nn.Module)

Bits = Annotated[int, Field(ge=2, le=8)]


class Unquantizable(ValueError):
    """A network with a layer that cannot be quantised."""


class Precision(Options):
    """How many bits a network gets."""

    weight_bits: Bits = 4
    activation_bits: Bits = 4
    """Of each layer's input; the image itself always has 8, as it is bytes."""
    edge_bits: Bits | None = None
    """Of the weights of the first and last layer, and of the last one's input; as all others if not given, as GDFQ
    does. Many papers give these 8 and leave that out of their W4A4."""
    symmetric: bool = False
    """Weights: 0 is stored as 0."""


def quantized(network: Network, precision: Precision) -> Network:
    """A copy of ``network`` whose convolutions and linear layers round, and whose BatchNorm is frozen.

    Parameters keep their names; ``network`` holds layers and is none itself. Ranges have still to be set, with
    `calibrate`. First and last are the first and last layer in order of registration.

    Raises:
        Unquantizable: naming the first layer with parameters of any other kind.
    """
    network = copy.deepcopy(network)
    layers = [module for module in network.modules() if isinstance(module, Quantizable)]
    if not layers:
        raise Unquantizable(f"{type(network).__name__} has no Conv2d or Linear layer to quantise")
    p = precision

    def rounding(layer: nn.Module) -> nn.Module:
        first, last = layer is layers[0], layer is layers[-1]
        edge = p.edge_bits if p.edge_bits is not None and (first or last) else None
        weights = WeightRounding(edge or p.weight_bits, p.symmetric)
        inputs = InputRounding(IMAGE_BITS if first else edge or p.activation_bits)
        if type(layer) is nn.Conv2d:
            return QuantizedConv2d(layer, weights, inputs)
        assert isinstance(layer, nn.Linear)
        return QuantizedLinear(layer, weights, inputs)

    def fitting(name: str, module: nn.Module) -> nn.Module | None:
        if type(module) in (nn.Conv2d, nn.Linear):
            return rounding(module)
        if type(module) is nn.BatchNorm2d and module.running_mean is not None:
            return FrozenBatchNorm2d(module)
        if next(module.parameters(recurse=False), None) is not None:
            raise Unquantizable(
                f"layer {name!r} ({type(module).__name__}) cannot be quantised: only Conv2d and Linear can, beside "
                "BatchNorm2d"
            )
        return None

    new = {module: fitting(name, module) for name, module in network.named_modules()}
    for module in new:
        # A child that several modules share stays shared.
        for name, child in list(module.named_children()):
            if (other := new[child]) is not None:
                setattr(module, name, other)
    return network


def roundings(network: nn.Module) -> list[InputRounding]:
    """Those of a quantised network's inputs, in order of registration."""
    return [module for module in network.modules() if isinstance(module, InputRounding)]


@contextmanager
def observing(network: nn.Module) -> Iterator[None]:
    """Let every batch that passes move the ranges."""
    for rounding in roundings(network):
        rounding.observing = True
    try:
        yield
    finally:
        for rounding in roundings(network):
            rounding.observing = False


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[Tensor], anew: bool = True) -> None:
    """Set the ranges of a quantised network by batches of images, as they pass through layers that round already.

    One batch gives min-max ranges; several give moving averages of them.

    Args:
        network: from `quantized`, alone or inside another.
        batches: of images as the network takes them.
        anew: forget the ranges there are, or move them.
    """
    for rounding in roundings(network) if anew else ():
        rounding.forget()
    with observing(network), in_mode(network, training=False):
        for batch in batches:
            network(batch)
