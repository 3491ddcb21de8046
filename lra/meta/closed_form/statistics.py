"""Batch norm's statistics of one forward pass, kept with their graph and used in another.

Torch-function modes see every call of ``torch.nn.functional.batch_norm``, so that no student needs to be changed and
``higher``'s copies are seen too. Calls are matched by their order.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lra.meta.checks import MetaStepError
from lra.meta.closed_form.rules import batch_norm_with_moments

_SIGNATURE = signature(F.batch_norm)


class Moments(NamedTuple):
    """Mean and variance of what one batch norm normalised, per channel: each (channels,), with its graph."""

    mean: Tensor
    inverse: Tensor
    """1 / sqrt(variance + eps), the variance divided by the count."""


@contextmanager
def recording(moments: list[Moments], rules: bool) -> Iterator[None]:
    """Append the moments of every training-mode batch norm that runs while this is open, ``rules``: by closed forms."""
    with _Recording(moments, rules):
        yield


@contextmanager
def normalised_by(moments: Sequence[Moments]) -> Iterator[None]:
    """Let the training-mode batch norms that run while this is open use recorded moments, in order, and move nothing.

    Raises:
        MetaStepError: if there are more of them than were recorded.
    """
    with _Recorded(moments):
        yield


class _Recording(TorchFunctionMode):
    def __init__(self, moments: list[Moments], rules: bool) -> None:
        super().__init__()
        self._moments = moments
        self._rules = rules

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm or not (call := _call(*args, **kwargs)).training:
            return func(*args, **kwargs)
        found = batch_norm_with_moments(*args, **kwargs) if self._rules else None
        if found is None:
            axes = [axis for axis in range(call.input.dim()) if axis != 1]
            single = torch.promote_types(call.input.dtype, torch.float32)
            variance, mean = torch.var_mean(call.input.to(single), axes, correction=0)
            found = func(*args, **kwargs), mean, (variance + call.eps).rsqrt()
        output, mean, inverse = found
        self._moments.append(Moments(mean, inverse))
        return output


class _Recorded(TorchFunctionMode):
    def __init__(self, moments: Sequence[Moments]) -> None:
        super().__init__()
        self._moments = iter(moments)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.batch_norm or not (call := _call(*args, **(kwargs or {}))).training:
            return func(*args, **(kwargs or {}))
        found = next(self._moments, None)
        if found is None:
            raise MetaStepError(
                "the pass at θ' has more batch norms than the one at θ; compute the acquisition loss from "
                "look.student(x), or use ahead_statistics='batch'"
            )
        shape = [1, -1] + [1] * (call.input.dim() - 2)
        scale = found.inverse if call.weight is None else call.weight * found.inverse
        centred = (call.input - found.mean.view(shape)) * scale.view(shape)
        return centred if call.bias is None else centred + call.bias.view(shape)


def _call(*args: Any, **kwargs: Any) -> SimpleNamespace:
    """The arguments of a call of ``torch.nn.functional.batch_norm``, by name."""
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    return SimpleNamespace(**bound.arguments)
