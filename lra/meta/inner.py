"""Inner rules: how the acquisition gradient moves θ to θ', as a differentiable function.

There is no optimiser state: an inner step equals the first step of the torch optimiser of the same name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lra.meta.options import LookAheadOptions

Rate = float | Tensor
"""α of one parameter: a number, or a scalar tensor on the parameter's device."""

Average = Callable[[Sequence[Tensor | None]], list[Tensor | None]]
"""Averages gradients over processes: takes those of all parameters on one process, returns their means."""


class InnerRule(ABC):
    """θ' = θ − α · direction(g + λθ), with g = ∇L_acq(θ) averaged, then clipped or normalised.

    Args:
        rates: α of each parameter.
        options: λ, ``clip`` and ``normalise``.
        average: applied to g first: for example a differentiable mean over processes.
    """

    def __init__(self, rates: Sequence[Rate], options: LookAheadOptions, average: Average | None = None):
        self.rates = list(rates)
        self.options = options
        self.average = average

    def describe(self) -> str:
        """α for messages: ``0.01``, or ``0.001..0.1`` if parameters differ."""
        values = [float(rate) for rate in self.rates]
        low, high = min(values, default=0.0), max(values, default=0.0)
        return f"{high:g}" if low == high else f"{low:g}..{high:g}"

    def shaped(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The inner gradient after averaging, and clipping or normalising; differentiable."""
        if self.average is not None:
            gradients = self.average(gradients)
        clip = self.options.clip
        present = [gradient for gradient in gradients if gradient is not None]
        if not present or (clip is None and not self.options.normalise):
            return list(gradients)
        squares = torch.stack([gradient.square().sum() for gradient in present]).sum()
        # The smallest normal number keeps the derivative of the root finite at a zero gradient.
        norm = (squares + torch.finfo(squares.dtype).tiny).sqrt()
        scale = 1 / norm if clip is None else (clip / norm).clamp(max=1)
        return [None if gradient is None else gradient * scale for gradient in gradients]

    def directions(self, parameters: Sequence[Tensor], shaped: Sequence[Tensor | None]) -> list[Tensor | None]:
        """(θ − θ') / α of each parameter, from inner gradients that are `shaped`; None where there is no gradient."""
        decay = self.options.inner_weight_decay
        decayed = [
            gradient.add(parameter, alpha=decay) if gradient is not None and decay else gradient
            for parameter, gradient in zip(parameters, shaped, strict=True)
        ]
        return [None if gradient is None else self.direction(gradient) for gradient in decayed]

    def moved(self, parameters: Sequence[Tensor], directions: Sequence[Tensor | None]) -> list[Tensor]:
        """θ' of each parameter; one without a gradient stays unchanged, as in torch's optimisers."""
        return [
            p if d is None else (p - rate * d if isinstance(rate, Tensor) else p.add(d, alpha=-rate))
            for p, d, rate in zip(parameters, directions, self.rates, strict=True)
        ]

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """θ' of each parameter, from ∇L_acq(θ)."""
        return self.moved(parameters, self.directions(parameters, self.shaped(gradients)))

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The direction of the first step for a gradient with weight decay, elementwise; differentiable."""

    @abstractmethod
    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser whose version in ``higher`` takes the same step: lr 0, and one group per parameter."""


class InnerSGD(InnerRule):
    """First step of `torch.optim.SGD`, in which momentum plays no part: θ' = θ − α (g + λθ)."""

    def direction(self, gradient: Tensor) -> Tensor:
        """``gradient``."""
        return gradient

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """See `InnerRule`."""
        return torch.optim.SGD(_groups(parameters), lr=0.0, weight_decay=self.options.inner_weight_decay)


class InnerAdam(InnerRule):
    """First step of `torch.optim.Adam`, in which its averages cancel: θ' = θ − α d / (|d| + eps), d = g + λθ.

    Its derivative, α eps / (|d| + eps)², is near zero except where |d| is about ``eps``: with the usual eps the
    second-order term carries almost no information and is badly conditioned. A larger eps makes it smooth.
    """

    eps = 1e-8

    def direction(self, gradient: Tensor) -> Tensor:
        """``gradient / (|gradient| + eps)``."""
        return gradient / (gradient.abs() + self.eps)

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """See `InnerRule`."""
        # higher adds eps before the bias correction of the second moment, torch after it.
        betas, decay = (0.9, 0.999), self.options.inner_weight_decay
        eps = self.eps * (1 - betas[1]) ** 0.5
        return torch.optim.Adam(_groups(parameters), lr=0.0, betas=betas, eps=eps, weight_decay=decay)


def along_momentum(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """(1 − μ) m of each parameter: the average of past gradients in its momentum m; None where it has none yet.

    Args:
        optimizer: SGD with or without dampening, of these parameters; m is Σ μ^k g_k over the steps k ago.
        parameters: θ.

    Raises:
        ValueError: if the optimiser has no momentum.
    """
    rates = {id(p): group.get("momentum", 0) for group in optimizer.param_groups for p in group["params"]}
    if not all(rates.get(id(parameter)) for parameter in parameters):
        raise ValueError("along=momentum needs an optimiser with momentum, torch.optim.SGD(..., momentum=0.9) say")
    kept = [optimizer.state.get(parameter, {}).get("momentum_buffer") for parameter in parameters]
    return [None if m is None else (1 - rates[id(p)]) * m for p, m in zip(parameters, kept, strict=True)]


def _groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": [parameter]} for parameter in parameters]


INNER: dict[str, type[InnerRule]] = {"sgd": InnerSGD, "adam": InnerAdam}
"""The inner rules, by the value of the option ``inner``."""
