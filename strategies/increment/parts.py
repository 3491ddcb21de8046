"""Parts of published strategies for class increments that others can have too, ours among them."""

from collections.abc import Iterable

import torch
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from lra.distances import local_cross_entropy
from lra.relations import RelationalAngle

IMPOSSIBLE = -1e4
"""A logit that softmax makes 0, without the NaN of infinite ones."""


def by_share(values: Tensor, real: int, share: float) -> Tensor:
    """Mean () of ``values`` (n,), of which the first ``real`` count by ``share`` and the others by 1 - ``share``."""
    return torch.cat([share * values[:real], (1 - share) * values[real:]]).mean()


class Relation:
    """Angles between real images as the old model has them, in projections that learn along (R-DFCIL, ECCV 2022).

    Args:
        features: d.
        width: of the projections.
        strategy: with the optimiser whose kind and settings that of the projections has.

    Attributes:
        angles: the projections.
        optimiser: of them.
    """

    def __init__(self, features: int, width: int, strategy: SupervisedTemplate):
        self.angles = RelationalAngle(features, width).to(next(strategy.model.parameters()))
        self.optimiser = type(strategy.optimizer)(self.angles.parameters(), **strategy.optimizer.defaults)

    def __call__(self, features: Tensor, reference: Tensor) -> Tensor:
        """Distance () of features (n, d) from those of the old model (n, d); 0 where fewer than three make no angle."""
        return self.angles(features, reference) if len(features) > 2 else features.new_zeros(())

    def step(self, lr: float) -> None:
        """Let the projections step, at the rate of the model."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        self.optimiser.zero_grad()


def refuse_few(minibatch: int, option: str) -> None:
    """Refuse a ``minibatch`` without an angle.

    Raises:
        ValueError: for one of fewer than three images.
    """
    if minibatch < 3:
        raise ValueError(
            f"angles are between three images, and minibatch is {minibatch}: set minibatch to 3 or more, or {option}=0"
        )


def balanced_weights(counts: Tensor) -> Tensor:
    """Weights (K,) of classes that came ``counts`` (K,) times: the inverse, 1 for the most frequent, 0 for none."""
    return torch.where(counts > 0, counts.max() / counts.clamp_min(1), 0.0)


class BalancedHead:
    """The last of an experience's steps, in which the head learns alone, at a rate of its own (R-DFCIL, ECCV 2022).

    On the cross-entropy of all classes met, each weighted by the inverse of how often it came so far; SGD with
    momentum 0.9, which is inferred.

    Args:
        head: of the model.
        classes: those met, and the new ones.
        lr: of SGD.
        steps: of the experience.
        share: of them in which the head learns alone.

    Attributes:
        optimiser: of the head.
        left: steps of the experience.
    """

    def __init__(self, head: nn.Module, classes: Iterable[int], lr: float, steps: int, share: float):
        self.classes = sorted(classes)
        self.optimiser = torch.optim.SGD(head.parameters(), lr, momentum=0.9)
        self.counts = torch.zeros(self.classes[-1] + 1, device=next(head.parameters()).device)
        self.left, self.last = steps, round(steps * share)

    @property
    def alone(self) -> bool:
        """Whether the head alone learns now."""
        return self.left <= self.last

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """() of logits (n, K) for labels (n,)."""
        self.counts += torch.bincount(labels, minlength=len(self.counts))
        weights = balanced_weights(self.counts)[labels]
        return (weights * local_cross_entropy(logits, labels, self.classes)).sum() / weights.sum()

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Let the head step, and the model's ``optimiser`` leave every weight as it is."""
        self.optimiser.step()
        optimiser.zero_grad(set_to_none=True)
