"""What a network costs: parameters, multiplications, and memory of a forward pass, told without having it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lra.networks import build
from lra.networks.foreign import runs_user_code
from lra.networks.shapes import Image
from lra.preservation import untouched


@dataclass(frozen=True)
class Footprint:
    """The size of a network for images of one size.

    Attributes:
        parameters: how many numbers it learns.
        weights: bytes of parameters and buffers.
        work: multiply-adds of a forward pass, for each image.
        kept: bytes that a forward pass in training keeps for the way back, for each image.
    """

    parameters: int
    weights: int
    work: float
    kept: int


def footprint(network: nn.Module, image: Image, training: bool = True) -> Footprint:
    """Measure ``network`` on black images, two and three of them, leaving no trace.

    Args:
        network: images (n,C,H,W) -> anything; on any device, ``meta`` included, where nothing is allocated.
        image: channels, height and width.
        training: whether it is to be trained, or only asked.

    Raises:
        RuntimeError: or whatever else it raises if it does not take such images.
    """
    with untouched(network):
        network.train(training)
        (few, work), (more, _) = (_pass(network, image, n) for n in (2, 3))
    tensors = [*network.parameters(), *network.buffers()]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    # What does not grow with the number of images is the weights, which are kept as they are.
    return Footprint(parameters, sum(t.nbytes for t in tensors), work / 2, more - few)


def named_footprint(name: str, classes: int, image: Image, training: bool = True) -> Footprint:
    """`footprint` of `lra.networks.build`'s ``name``, where it can be without allocating its weights.

    Raises:
        ValueError: as `lra.networks.build`.
        ModuleNotFoundError: likewise.
    """
    if runs_user_code(name):  # What it says may have changed, and only it knows on which device it builds.
        return _built(name, classes, image, training)
    return _known(name, classes, image, training)


@cache
def _known(name: str, classes: int, image: Image, training: bool) -> Footprint:
    try:
        with torch.device("meta"):
            return footprint(build(name, classes, image, training), image, training)
    # An initialisation that looks at numbers, say, of which there are none here.
    except (RuntimeError, ValueError, NotImplementedError):
        return _built(name, classes, image, training)


def _built(name: str, classes: int, image: Image, training: bool) -> Footprint:
    with torch.random.fork_rng(devices=[]):
        return footprint(build(name, classes, image, training), image, training)


def _pass(network: nn.Module, image: Image, n: int) -> tuple[int, float]:
    """Bytes kept by a forward pass of ``n`` images, and its multiply-adds."""
    device = next((p.device for p in network.parameters()), torch.get_default_device())
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Held, so that no other storage takes its address; a map that two layers keep is one map.
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    unpack: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    counter = FlopCounterMode(display=False)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, unpack), counter:
        network(torch.zeros(n, *image, device=device))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), counter.get_total_flops() / 2
