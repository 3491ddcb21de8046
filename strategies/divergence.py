"""A guard that stops training at the first number that is none, or far too large, and names it."""

import math
from collections.abc import Iterable, Mapping

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.batches import Diverged

LIMIT = 1e6
"""Largest norm of a network's weights, or of the student's gradient, that is taken for training."""


class DivergenceGuard(SupervisedPlugin):
    """Raises `Diverged` before anything is made of a bad number; comes before the evaluation and every checkpoint.

    The student's loss is looked at in every step, before the update; synthesis terms when an experience opens; norms
    when it closes, because they cost more.

    Args:
        networks: those that learn, by the name to call them.
    """

    def __init__(self, networks: Mapping[str, nn.Module]):
        super().__init__()
        self.networks = dict(networks)

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Look at the terms of the update that opened the experience."""
        terms = {} if strategy.synthesis is None else strategy.synthesis.terms
        for name, value in terms.items():
            self._refuse(f"synthesis term {name!r}", float(value.raw), math.inf, strategy)

    def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Look at the loss."""
        loss = strategy.loss.item()
        named = "the student's loss" if math.isfinite(loss) else f"the student's loss ({_blame(strategy)})"
        self._refuse(named, loss, math.inf, strategy)

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Look at the last gradient and at all weights."""
        gradient = [p.grad for p in strategy.model.parameters() if p.grad is not None]
        self._refuse("the norm of the student's gradient", norm(gradient), LIMIT, strategy)
        for name, network in self.networks.items():
            self._refuse(f"the norm of the {name}'s weights", norm(network.parameters()), LIMIT, strategy)

    @staticmethod
    def _refuse(what: str, value: float, limit: float, strategy: DataFreeDistillation) -> None:
        if not math.isfinite(value) or value > limit:
            raise Diverged(f"{what} is {value:.3g} at student step {strategy.clock.train_iterations}")


@torch.no_grad()
def _blame(strategy: DataFreeDistillation) -> str:
    """Terms of the objective that are no numbers at the current weights, on the minibatch or what is replayed."""
    objective, batches = strategy.objective, [strategy.minibatch, strategy.replayed]
    parts = [objective.parts(objective.view(strategy.model, batch)) for batch in batches if batch is not None]
    bad = {name for found in parts for name, value in found.items() if not torch.isfinite(value)}
    return f"its {', '.join(sorted(bad))}" if bad else "each term is finite: what a plugin added, or the look-ahead"


def norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean norm of all numbers in ``tensors``; NaN if one is."""
    return nn.utils.get_total_norm([tensor.detach() for tensor in tensors]).item()
