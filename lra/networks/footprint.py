"""The cost of a network: parameters, multiplications, and memory of a forward pass, found without allocating it."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lra.images import Image
from lra.networks import build
from lra.networks.foreign import runs_user_code
from lra.state import frozen, untouched


@dataclass(frozen=True)
class Footprint:
    """The size of a network for images of one size.

    Attributes:
        parameters: number of trainable parameters.
        weights: bytes of parameters and buffers.
        work: multiply-adds of a forward pass, per image.
        kept: bytes that a forward pass keeps for the backward pass, per image.
    """

    parameters: int
    weights: int
    work: float
    kept: int


def footprint(network: nn.Module, shape: Sequence[int], training: bool = True) -> Footprint:
    """Measure ``network`` on batches of two and three zero inputs, without side effects.

    Args:
        network: inputs (n, *shape) -> anything; on any device, including ``meta``, where nothing is allocated.
        shape: of an input: channels, height and width of an image, or the size of a latent.
        training: whether it is to be trained, or only passes gradients to its inputs.

    Raises:
        RuntimeError: or whatever else the network raises if it does not take such images.
    """
    with untouched(network):
        network.train(training)
        with nullcontext() if training else frozen(network):
            (few, work), (more, _) = (_pass(network, shape, n, training) for n in (2, 3))
    tensors = [*network.parameters(), *network.buffers()]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    # What does not grow with the number of images is the weights, which are kept as they are.
    return Footprint(parameters, sum(t.nbytes for t in tensors), work / 2, more - few)


@cache
def named_footprint(name: str, classes: int, image: Image, training: bool = True, auxiliary: bool = False) -> Footprint:
    """`footprint` of the network ``name`` of `lra.networks.build`, if possible without allocating its weights.

    With ``auxiliary`` classifiers if it has them, see there.

    Raises:
        ValueError: as `lra.networks.build`.
        ModuleNotFoundError: likewise.
    """
    try:
        if runs_user_code(name):  # Which may keep what it builds for later, and that must not be of no device.
            return _built(name, classes, image, training, auxiliary)
        with torch.device("meta"):
            return footprint(build(name, classes, image, training, auxiliary), image, training)
    # An initialisation that looks at numbers, say, of which there are none here.
    except (RuntimeError, ValueError, NotImplementedError):
        return _built(name, classes, image, training, auxiliary)


def _built(name: str, classes: int, image: Image, training: bool, auxiliary: bool) -> Footprint:
    with torch.random.fork_rng(devices=[]):
        return footprint(build(name, classes, image, training, auxiliary), image, training)


def _pass(network: nn.Module, shape: Sequence[int], n: int, training: bool) -> tuple[int, float]:
    """Bytes kept by a forward pass on ``n`` inputs, and its multiply-adds."""
    device = next((p.device for p in network.parameters()), torch.get_default_device())
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Held, so that no other storage takes its address; a map that two layers keep is one map.
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    unpack: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    counter = FlopCounterMode(display=False)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, unpack), counter:
        network(torch.zeros(n, *shape, device=device, requires_grad=not training))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), counter.get_total_flops() / 2
