"""The inner rules there are: SGD and Adam, and how to read one off a torch optimiser."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lra.meta.inner import InnerRule, Rate


@dataclass(frozen=True, eq=False)
class InnerSGD(InnerRule):
    """First step of `torch.optim.SGD`: θ' = θ − α (1 + nesterov·momentum) (g + weight_decay·θ).

    Args:
        momentum: in [0, 1). On a first step it acts only through ``nesterov``.
        nesterov: look along the momentum; needs ``momentum`` > 0.

    Raises:
        ValueError: a setting out of range.
    """

    _: KW_ONLY
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"InnerSGD: momentum is {self.momentum}; give a number in [0, 1)")
        if self.nesterov and not self.momentum:
            raise ValueError("InnerSGD: nesterov needs a momentum above 0; set it, or drop nesterov")

    def direction(self, gradient: Tensor) -> Tensor:
        """``gradient``, longer by the momentum under Nesterov."""
        return gradient.add(gradient, alpha=self.momentum) if self.nesterov else gradient

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """SGD with this rule's settings but lr 0, one group a parameter."""
        return torch.optim.SGD(
            _groups(parameters),
            lr=0.0,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


@dataclass(frozen=True, eq=False)
class InnerAdam(InnerRule):
    """First step of `torch.optim.Adam`: θ' = θ − α d / (|d| + eps), d = g + weight_decay·θ.

    Its derivative, α eps / (|d| + eps)², is near zero except where |d| is about ``eps``: with the usual eps
    the second-order term carries almost nothing, and that badly conditioned. A larger eps makes it smooth.

    Args:
        betas: each in [0, 1); they cancel in a first step and only mirror the optimiser.
        eps: > 0.

    Raises:
        ValueError: a setting out of range.
    """

    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"InnerAdam: betas are {self.betas}; give two numbers in [0, 1)")
        if not self.eps > 0:
            raise ValueError(f"InnerAdam: eps is {self.eps}; give a number > 0")

    def direction(self, gradient: Tensor) -> Tensor:
        """``gradient / (|gradient| + eps)``."""
        return gradient / (gradient.abs() + self.eps)

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam with this rule's settings but lr 0, one group a parameter."""
        # higher adds eps before the bias correction of the second moment, torch after it.
        eps = self.eps * (1 - self.betas[1]) ** 0.5
        return torch.optim.Adam(_groups(parameters), lr=0.0, betas=self.betas, eps=eps, weight_decay=self.weight_decay)


def _groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": [parameter]} for parameter in parameters]


def inner_from(optimizer: torch.optim.Optimizer) -> InnerRule:
    """The inner rule that takes ``optimizer``'s first step; its state (momentum, moments) is not read.

    Args:
        optimizer: a `torch.optim.SGD` or `torch.optim.Adam`. Groups may differ in ``lr`` only.

    Raises:
        ValueError: another optimiser, ``maximize``, decoupled decay, or groups that differ in more than lr.
    """
    kind = type(optimizer)
    if kind not in (torch.optim.SGD, torch.optim.Adam):
        raise ValueError(f"inner optimiser {kind.__name__} has no differentiable form here; use SGD or Adam")
    for option in ("maximize", "decoupled_weight_decay"):
        if any(group.get(option) for group in optimizer.param_groups):
            raise ValueError(f"inner optimiser {kind.__name__}: {option}=True has no differentiable form; set it False")
    settings = ("weight_decay", "momentum", "nesterov") if kind is torch.optim.SGD else ("weight_decay", "betas", "eps")
    common = {name: optimizer.param_groups[0][name] for name in settings}
    for group in optimizer.param_groups[1:]:
        for name in settings:
            if group[name] != common[name]:
                raise ValueError(
                    f"inner optimiser {kind.__name__}: groups differ in {name} ({common[name]}, "
                    f"{group[name]}); only lr may differ"
                )
    rates: dict[nn.Parameter, Rate] = {
        parameter: float(group["lr"]) for group in optimizer.param_groups for parameter in group["params"]
    }
    lr = next(iter(rates.values())) if len(set(rates.values())) == 1 else rates
    return InnerSGD(lr, **common) if kind is torch.optim.SGD else InnerAdam(lr, **common)
