"""The state of a run, which is carried from one process to the next, and contexts without side effects.

The contexts at the end leave networks and random states as they found them.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

State = dict[str, Any]
"""Tensors, numbers, strings and containers of these: what ``torch.load(weights_only=True)`` accepts."""


@runtime_checkable
class Stateful(Protocol):
    """Anything with a state from which a resumed run continues."""

    def state_dict(self) -> State:
        """The state."""

    def load_state_dict(self, state: State) -> object:
        """Take up a state of `state_dict`."""


class Owner:
    """A part of a run that may have networks of its own that learn, besides the student."""

    def networks(self) -> dict[str, nn.Module]:
        """The networks that learn from experience to experience, by name; none unless overridden."""
        return {}

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The optimisers that persist as long as its networks."""
        return []


def owners(parts: Iterable[object]) -> list[Owner]:
    """Those among ``parts`` that may own networks."""
    return [part for part in parts if isinstance(part, Owner)]


def random_states() -> State:
    """Every global random state: Python, NumPy, torch on the CPU and on each CUDA device."""
    version, numbers, gauss = random.getstate()
    # get_state() names the bit generator and holds an array: kept as plain numbers for weights_only loading.
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(state: State) -> None:
    """Take up a state of `random_states`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices).

    Args:
        seed: 0 ≤ seed < 2³².
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """A context in which gradients pass through ``module`` without computing those of its weights."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def turn(module: nn.Module, training: bool) -> None:
    """Put ``module`` in training or evaluation mode, at no cost if it is already; its parts must share its mode."""
    if module.training != training:
        module.train(training)


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """A context in which ``module`` is in training or evaluation mode."""
    before = {child: child.training for child in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for child, mode in before.items():
            child.training = mode


@contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """A context that restores buffers (BatchNorm statistics, spectral-norm vectors), modes and random states."""
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    modes = [(child, child.training) for module in modules for child in module.modules()]
    devices = {buffer.device for buffer, _ in buffers} | {p.device for m in modules for p in m.parameters()}
    if torch.cuda.is_initialized():
        devices.add(torch.device("cuda", torch.cuda.current_device()))
    with torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
        try:
            yield
        finally:
            with torch.no_grad():
                # One that has not moved may be part of a graph, which a write would break.
                for (buffer, value), moved in zip(buffers, _moved(buffers), strict=True):
                    if moved:
                        buffer.copy_(value)
            for child, mode in modes:
                child.training = mode


def _moved(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[bool]:
    """Whether the first of each pair differs from the second; waits for a GPU once."""
    if not pairs:
        return []
    device = pairs[0][0].device
    return torch.stack([(now != before).any().to(device) for now, before in pairs]).tolist()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which torch's random numbers come from ``seed``, on all devices; earlier states are restored."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
