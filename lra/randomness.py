"""Where random numbers are drawn, and how those drawn on the host reach the device that computes.

By default they are drawn on the host, so that every device sees the same ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_ON_DEVICE: ContextVar[bool] = ContextVar("_ON_DEVICE", default=False)


@contextmanager
def drawn_on_device(active: bool = True) -> Iterator[None]:
    """A context in which, if ``active``, random numbers are drawn by the device that needs them."""
    token = _ON_DEVICE.set(active)
    try:
        yield
    finally:
        _ON_DEVICE.reset(token)


def source(device: torch.device) -> torch.device:
    """The device on which random numbers for ``device`` are to be drawn."""
    return device if _ON_DEVICE.get() else torch.device("cpu")


def sent(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``; from the host without waiting for work that a GPU has still to do.

    This uses a copy in pinned memory, from which the GPU copies when its turn comes.
    """
    if values.device == device or values.device.type != "cpu":
        return values.to(device)
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def normal(*shape: int, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Standard normal numbers of this shape on ``device``, see `source`."""
    return sent(torch.randn(*shape, dtype=dtype, device=source(device)), device)


def uniform(*shape: int, device: torch.device) -> Tensor:
    """Numbers from U(0, 1) of this shape on ``device``, see `source`."""
    return sent(torch.rand(*shape, device=source(device)), device)


def integers(below: int, *shape: int, device: torch.device) -> Tensor:
    """Integers from 0 to ``below`` - 1, int64, of this shape on ``device``, see `source`."""
    return sent(torch.randint(below, shape, device=source(device)), device)


def permutation(n: int, device: torch.device) -> Tensor:
    """0..n-1 in random order, (n,) int64, on ``device``, see `source`."""
    return sent(torch.randperm(n, device=source(device)), device)
