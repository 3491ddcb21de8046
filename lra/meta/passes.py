"""What surrounds a forward pass: the student's parameters and buffers, and how it may be differentiated."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from lra.meta.rules import closed_form
from lra.meta.settings import Settings


def trainable(student: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters a step moves, by name, each once, in the student's order."""
    return {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}


def clones(student: nn.Module) -> dict[str, Tensor]:
    """The student's buffers (running statistics, spectral-norm vectors, ...), cloned."""
    return {name: buffer.detach().clone() for name, buffer in student.named_buffers()}


def swapped(student: nn.Module, tensors: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
    """A forward pass of ``student`` with other ``tensors`` in the place of some of its own, by any of their names.

    What several layers share, a weight or a whole layer, is swapped for all of them.
    """
    # functional_call's own ties would leave a layer that has two names with the tensor that was swapped in.
    named = dict([*student.named_parameters(), *student.named_buffers()])
    instead = {id(named[name]): tensor for name, tensor in tensors.items()}
    places = {
        f"{prefix}.{slot}" if prefix else slot: instead[id(own)]
        for prefix, part in student.named_modules()
        for slot, own in [*part._parameters.items(), *part._buffers.items()]
        if own is not None and id(own) in instead
    }
    return functional_call(student, places, args, kwargs, tie_weights=False)


def beside(forward: Callable[..., Tensor], others: Tensor) -> Callable[[Tensor], Tensor]:
    """``forward`` of images (n, C, H, W) that go through it, first, with ``others``: BatchNorm sees all of them."""
    return lambda images: forward(torch.cat([images, others]))[: len(images)]


@contextmanager
def running_statistics(module: nn.Module, active: bool) -> Iterator[None]:
    """If ``active``, batch norm uses its running statistics, and leaves them alone, while this is open."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training and active]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


@contextmanager
def differentiable(settings: Settings, times: int) -> Iterator[None]:
    """Forward passes made while this is open can be differentiated ``times`` times, fast."""
    with ExitStack() as stack:
        if times == 2:
            # The other attention kernels have no second derivative.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if settings.rules:
            stack.enter_context(closed_form(times))
        yield
