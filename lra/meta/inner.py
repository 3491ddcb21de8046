"""Inner rules: how the acquisition gradient moves θ to θ', as a differentiable function.

The state is fresh: an inner step equals the first step of the torch optimiser of the same name.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

Rate = float | Tensor
"""A learning rate α: a number, a scalar tensor, or a tensor that broadcasts over its parameter."""

Rates = Rate | Sequence[Rate] | Mapping[str, Rate] | Mapping[nn.Parameter, Rate]
"""One rate for all parameters, one each in the order of the trainable parameters, or by name or parameter."""

Average = Callable[[Sequence[Tensor | None]], list[Tensor | None]]
"""Of the gradients of all parameters: from those of one process to those of all."""


def _total_norm(gradients: Sequence[Tensor]) -> Tensor:
    squares = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    # The smallest normal number keeps the derivative of the root finite at a zero gradient.
    return (squares + torch.finfo(squares.dtype).tiny).sqrt()


@dataclass(frozen=True, eq=False)
class InnerRule(ABC):
    """θ' = θ − α · direction(θ, g), with g = ∇L_acq(θ) as it is, clipped, or normalised.

    Args:
        lr: α >= 0; see :data:`Rates`. Tensors that require grad are learned rates (Meta-SGD, Li et al. 2017;
            La-MAML, Gupta et al. 2020): the session then gives their gradient as ``alpha_gradient``.
        weight_decay: >= 0; adds ``weight_decay · θ`` to g (after clipping).
        clip: > 0; largest norm of g over all parameters. None leaves g as it is.
        normalise: divide g by its norm over all parameters.
        average: what becomes of g before all else: a differentiable mean over processes, say.

    Raises:
        ValueError: a setting out of range.
    """

    lr: Rates
    _: KW_ONLY
    weight_decay: float = 0.0
    clip: float | None = None
    normalise: bool = False
    average: Average | None = None

    def __post_init__(self) -> None:
        for rate in self._flat_rates():
            if not isinstance(rate, Tensor) and not (math.isfinite(rate) and rate >= 0):
                raise ValueError(f"{type(self).__name__}: lr is {rate}; give a finite number >= 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"{type(self).__name__}: weight_decay is {self.weight_decay}; give a number >= 0")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"{type(self).__name__}: clip is {self.clip}; give a number > 0, or None")
        if self.clip is not None and self.normalise:
            raise ValueError(f"{type(self).__name__}: clip and normalise exclude each other; drop one")

    def _flat_rates(self) -> list[Rate]:
        if isinstance(self.lr, Mapping):
            return list(self.lr.values())
        return list(self.lr) if isinstance(self.lr, Sequence) else [self.lr]

    def rates(self, named: Mapping[str, nn.Parameter]) -> list[Rate]:
        """α of each trainable parameter, in their order.

        Raises:
            ValueError: a parameter without a rate, or a sequence of another length.
        """
        if isinstance(self.lr, Mapping):
            by_key: dict[object, Rate] = dict(self.lr.items())
            found = [by_key.get(name, by_key.get(parameter)) for name, parameter in named.items()]
            missing = [name for name, rate in zip(named, found, strict=True) if rate is None]
            if missing:
                raise ValueError(f"{type(self).__name__}: lr has no rate for parameter {missing[0]!r}; add it")
            return [rate for rate in found if rate is not None]
        if isinstance(self.lr, Sequence):
            if len(self.lr) != len(named):
                raise ValueError(
                    f"{type(self).__name__}: lr has {len(self.lr)} rates for {len(named)} trainable "
                    "parameters; give one each"
                )
            return list(self.lr)
        return [self.lr] * len(named)

    def learnable(self) -> tuple[Tensor, ...]:
        """The rates that require grad, in the order of ``lr``, each once."""
        tensors = [rate for rate in self._flat_rates() if isinstance(rate, Tensor) and rate.requires_grad]
        return tuple({id(tensor): tensor for tensor in tensors}.values())

    def describe(self) -> str:
        """α in words, for messages: ``0.01``, or ``0.001..0.1`` when parameters differ."""
        values = [float(rate.detach().abs().max()) if isinstance(rate, Tensor) else rate for rate in self._flat_rates()]
        low, high = min(values, default=0.0), max(values, default=0.0)
        return f"{high:g}" if low == high else f"{low:g}..{high:g}"

    def shaped(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The inner gradient after averaging, and clipping or normalising; differentiable."""
        if self.average is not None:
            gradients = self.average(gradients)
        present = [gradient for gradient in gradients if gradient is not None]
        if not present or (self.clip is None and not self.normalise):
            return list(gradients)
        norm = _total_norm(present)
        scale = 1 / norm if self.clip is None else (self.clip / norm).clamp(max=1)
        return [None if gradient is None else gradient * scale for gradient in gradients]

    def update(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], rates: Sequence[Rate]
    ) -> list[Tensor]:
        """θ' of each parameter; one without a gradient stays as it is, as in torch's optimisers."""
        moved: list[Tensor] = []
        for parameter, gradient, rate in zip(parameters, self.shaped(gradients), rates, strict=True):
            if gradient is None:
                moved.append(parameter)
                continue
            if self.weight_decay:
                gradient = gradient.add(parameter, alpha=self.weight_decay)
            step = self.direction(gradient)
            moved.append(parameter - rate * step if isinstance(rate, Tensor) else parameter.add(step, alpha=-rate))
        return moved

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The first step's direction for a decayed gradient, elementwise; differentiable."""

    @abstractmethod
    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser whose form in ``higher`` takes the same step, with one group a parameter."""
