"""A network's exponential moving average: θ̃ <- αθ̃ + (1-α)θ."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The moving average of a network: of its parameters and of BatchNorm's running statistics.

    What else it buffers is copied: counters, spectral norm's vectors, which mean nothing on average. (Torch's own
    ``AveragedModel``, whose arithmetic this takes, averages all buffers or none.)

    Args:
        network: that is averaged, and where it starts.
        decay: α in [0, 1]: 0 follows the network, 1 stays where it started. Half of what it remembers is of the last
            ln ½ / ln α updates.

    Raises:
        ValueError: for another decay.

    Attributes:
        network: the average; it gets no gradient.
    """

    def __init__(self, network: nn.Module, decay: float):
        if not 0 <= decay <= 1:
            raise ValueError(f"the decay of an average lies in [0, 1]; got {decay}")
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._mix = get_ema_multi_avg_fn(decay)
        own, new = _tensors(self.network), _tensors(network)
        mixed = {*dict(network.named_parameters()), *_statistics(network)}
        self._all = list(zip(own.values(), new.values(), strict=True))
        self._mixed = [(own[name], new[name]) for name in own if name in mixed]
        self._copied = [(own[name], new[name]) for name in own if name not in mixed]

    @torch.no_grad()
    def restart(self) -> None:
        """Start again from the network as it is."""
        for own, new in self._all:
            own.copy_(new)

    @torch.no_grad()
    def update(self) -> None:
        """Take the network as it is into the average."""
        own, new = map(list, zip(*self._mixed, strict=True))
        self._mix(own, new, None)
        for mine, theirs in self._copied:
            mine.copy_(theirs)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _statistics(network: nn.Module) -> list[str]:
    """Names of BatchNorm's running means and variances."""
    norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    return [f"{name}.running_{kind}".removeprefix(".") for name in norms for kind in ("mean", "var")]
