"""The guard against divergence: it stops a run before a non-finite or exploding number is used."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.batches import Diverged

LIMIT = 1e6
"""Largest norm of a network's weights, or of the student's gradient, that is not taken for divergence."""
TOGETHER = 200
"""Numbers on a GPU that are checked together, unless an experience closes first."""


class _Watched(NamedTuple):
    what: str
    value: Tensor
    limit: float
    step: int


class DivergenceGuard(SupervisedPlugin):
    """Raises `Diverged` before a bad number is used; must precede the evaluation and every checkpoint.

    The student's loss is checked in every step, before the update; synthesis terms when an experience opens; norms when
    it closes, because they cost more. Reading a number from a GPU would wait for it each time: numbers stay there, and
    are checked together when an experience closes, or after `TOGETHER` of them.

    Args:
        networks: those that learn, by the names used in messages.
    """

    def __init__(self, networks: Mapping[str, nn.Module]):
        super().__init__()
        self.networks = dict(networks)
        self._unseen: list[_Watched] = []

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Check the terms of the update that opened the experience."""
        terms = {} if strategy.synthesis is None else strategy.synthesis.terms
        for name, value in terms.items():
            self._watch(f"synthesis term {name!r}", value.raw, math.inf, strategy)
        self._look(strategy)

    def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Check the loss."""
        loss, named = strategy.loss.detach(), "the student's loss"
        if _at_once(strategy) and not math.isfinite(loss.item()):
            named = f"{named} ({_blame(strategy)})"
        self._watch(named, loss, math.inf, strategy)
        self._look(strategy)

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Check the last gradient and all weights."""
        gradient = [p.grad for p in strategy.model.parameters() if p.grad is not None]
        self._watch("the norm of the student's gradient", _norm(gradient), LIMIT, strategy)
        for name, network in self.networks.items():
            self._watch(f"the norm of the {name}'s weights", _norm(network.parameters()), LIMIT, strategy)
        self._look(strategy, closing=True)

    def _watch(self, what: str, value: Tensor, limit: float, strategy: DataFreeDistillation) -> None:
        self._unseen.append(_Watched(what, torch.as_tensor(value).reshape(()), limit, strategy.clock.train_iterations))

    def _look(self, strategy: DataFreeDistillation, closing: bool = False) -> None:
        if not (self._unseen and (closing or _at_once(strategy) or len(self._unseen) >= TOGETHER)):
            return
        watched, self._unseen = self._unseen, []
        values = torch.stack([each.value for each in watched]).tolist()
        for (what, _, limit, step), value in zip(watched, values, strict=True):
            if not math.isfinite(value) or value > limit:
                raise Diverged(f"{what} is {value:.3g} at student step {step}")


def _at_once(strategy: DataFreeDistillation) -> bool:
    """Whether reading a number costs next to nothing."""
    return strategy.device.type == "cpu"


@torch.no_grad()
def _blame(strategy: DataFreeDistillation) -> str:
    """Names the terms of the objective that are not finite at the current weights, on new or replayed samples."""
    objective, batches = strategy.objective, [strategy.minibatch, strategy.replayed]
    parts = [objective.parts(objective.view(strategy.model, batch)) for batch in batches if batch is not None]
    bad = {name for found in parts for name, value in found.items() if not torch.isfinite(value)}
    return f"its {', '.join(sorted(bad))}" if bad else "each term is finite: what a plugin added, or the look-ahead"


def norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean norm of all numbers in ``tensors``; NaN if one of them is."""
    return _norm(tensors).item()


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return nn.utils.get_total_norm([tensor.detach() for tensor in tensors])
