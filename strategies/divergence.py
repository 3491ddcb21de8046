"""The guard against divergence: nothing is made of a number that is none, or that has grown beyond all training."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.batches import Diverged

LIMIT = 1e6
"""Largest norm of a network's weights, or of the student's gradient, that is taken for training."""
TOGETHER = 200
"""Numbers on a GPU that are looked at together, if no experience closes before."""


class _Watched(NamedTuple):
    what: str
    value: Tensor
    limit: float
    step: int


class DivergenceGuard(SupervisedPlugin):
    """Raises `Diverged` before anything is made of a bad number; comes before the evaluation and every checkpoint.

    The student's loss is looked at in every step, before the update; synthesis terms when an experience opens; norms
    when it closes, because they cost more. A GPU would be waited for each time: its numbers are kept there, and looked
    at together when an experience closes, or after `TOGETHER` of them.

    Args:
        networks: those that learn, by the name to call them.
    """

    def __init__(self, networks: Mapping[str, nn.Module]):
        super().__init__()
        self.networks = dict(networks)
        self._unseen: list[_Watched] = []

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Look at the terms of the update that opened the experience."""
        terms = {} if strategy.synthesis is None else strategy.synthesis.terms
        for name, value in terms.items():
            self._watch(f"synthesis term {name!r}", value.raw, math.inf, strategy)
        self._look(strategy)

    def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Look at the loss."""
        loss, named = strategy.loss.detach(), "the student's loss"
        if _at_once(strategy) and not math.isfinite(loss.item()):
            named = f"{named} ({_blame(strategy)})"
        self._watch(named, loss, math.inf, strategy)
        self._look(strategy)

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Look at the last gradient and at all weights."""
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
    """Whether it costs next to nothing to look at a number."""
    return strategy.device.type == "cpu"


@torch.no_grad()
def _blame(strategy: DataFreeDistillation) -> str:
    """Terms of the objective that are no numbers at the current weights, on the minibatch or what is replayed."""
    objective, batches = strategy.objective, [strategy.minibatch, strategy.replayed]
    parts = [objective.parts(objective.view(strategy.model, batch)) for batch in batches if batch is not None]
    bad = {name for found in parts for name, value in found.items() if not torch.isfinite(value)}
    return f"its {', '.join(sorted(bad))}" if bad else "each term is finite: what a plugin added, or the look-ahead"


def norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean norm of all numbers in ``tensors``; NaN if one is."""
    return _norm(tensors).item()


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return nn.utils.get_total_norm([tensor.detach() for tensor in tensors])
