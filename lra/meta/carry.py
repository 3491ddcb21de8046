"""A scalar that carries gradients computed elsewhere into an ordinary ``backward()``."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Carry(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = outputs
        return None, None, *(gradient * output for gradient in ctx.gradients)


def carry(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """``value``, with ``gradients`` as its gradient.

    ``carry(...).backward()`` adds exactly ``gradients`` to the parameters' ``.grad``, whatever graph
    ``value`` had; ``(carry(...) + penalty).backward()`` adds the penalty's on top; a loss scaler scales it.

    Args:
        value: scalar; what the loss reads as. Its own graph is not used.
        parameters: the tensors that receive; each requires grad.
        gradients: one for each parameter, of its shape.

    Raises:
        ValueError: counts or shapes that differ.
    """
    if len(parameters) != len(gradients):
        raise ValueError(f"carry: {len(gradients)} gradients for {len(parameters)} parameters; give one each")
    for index, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        if parameter.shape != gradient.shape:
            shapes = f"{tuple(gradient.shape)}, its parameter {tuple(parameter.shape)}"
            raise ValueError(f"carry: gradient {index} has shape {shapes}; give gradients in the parameters' order")
    return _Carry.apply(value, tuple(gradients), *parameters)
