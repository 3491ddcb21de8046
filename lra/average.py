"""A network's exponential moving average: θ̃ <- αθ̃ + (1-α)θ."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The moving average of a network: of its parameters and BatchNorm running statistics.

    Other buffers are copied: counters and spectral norm's vectors, whose averages have no meaning. (Torch's own
    ``AveragedModel``, whose arithmetic this uses, averages all buffers or none.)

    Args:
        network: the network to be averaged, from which the average starts.
        decay: α in [0, 1]: 0 follows the network, 1 stays where it started. The half-life is ln ½ / ln α updates.

    Raises:
        ValueError: if the decay is out of range.

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
        """Start again from the current network."""
        for own, new in self._all:
            own.copy_(new)

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current network."""
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
