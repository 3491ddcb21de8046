"""Looking without touching: contexts that leave networks and random numbers as they found them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``module`` without computing those of its weights."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put ``module`` in training or evaluation mode for a while."""
    before = {child: child.training for child in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for child, mode in before.items():
            child.training = mode


@contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Restore buffers (BatchNorm statistics, spectral-norm vectors), modes and all random states on leaving."""
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    modes = [(child, child.training) for module in modules for child in module.modules()]
    devices = {buffer.device for buffer, _ in buffers} | {p.device for m in modules for p in m.parameters()}
    with torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    # One that has not moved may be part of a graph, which a write would break.
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)
            for child, mode in modes:
                child.training = mode
