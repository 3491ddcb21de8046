"""Parts of published class-incremental strategies that other strategies can use too, including ours."""

from collections.abc import Iterable

import torch
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from lra.distances import local_cross_entropy
from lra.relations import RelationalAngle

IMPOSSIBLE = -1e4
"""A logit whose softmax is 0, without the NaN that an infinite one would cause."""


def by_share(values: Tensor, real: int, share: float) -> Tensor:
    """Mean () of ``values`` (n,), the first ``real`` weighted by ``share`` and the others by 1 - ``share``."""
    return torch.cat([share * values[:real], (1 - share) * values[real:]]).mean()


class Relation:
    """Keeps angles between real images as in the old model, in projections that are trained too (R-DFCIL, ECCV 2022).

    Args:
        features: d.
        width: of the projections.
        strategy: whose optimiser's class and settings are used for the projections too.

    Attributes:
        angles: the projections.
        optimiser: of the projections.
    """

    def __init__(self, features: int, width: int, strategy: SupervisedTemplate):
        self.angles = RelationalAngle(features, width).to(next(strategy.model.parameters()))
        self.optimiser = type(strategy.optimizer)(self.angles.parameters(), **strategy.optimizer.defaults)

    def __call__(self, features: Tensor, reference: Tensor) -> Tensor:
        """Distance () of features (n, d) from the old model's (n, d); 0 for fewer than three, which make no angle."""
        return self.angles(features, reference) if len(features) > 2 else features.new_zeros(())

    def step(self, lr: float) -> None:
        """Update the projections, at the model's learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        self.optimiser.zero_grad()


def refuse_few(minibatch: int, option: str) -> None:
    """Refuse a ``minibatch`` too small for an angle.

    Raises:
        ValueError: for fewer than three images.
    """
    if minibatch < 3:
        raise ValueError(
            f"angles are between three images, and minibatch is {minibatch}: set minibatch to 3 or more, or {option}=0"
        )


def balanced_weights(counts: Tensor) -> Tensor:
    """Weights (K,) of classes seen ``counts`` (K,) times: inverse frequencies, 1 for the most frequent, 0 if unseen."""
    return torch.where(counts > 0, counts.max() / counts.clamp_min(1), 0.0)


class BalancedHead:
    """The last steps of an experience, in which only the head learns, at its own learning rate (R-DFCIL, ECCV 2022).

    It learns from the cross-entropy over all classes met, each weighted by the inverse of how often it has been seen;
    SGD with momentum 0.9, which is inferred.

    Args:
        head: of the model.
        classes: all classes met, including the new ones.
        lr: learning rate of SGD.
        steps: of the experience.
        share: fraction of these steps in which only the head learns.

    Attributes:
        optimiser: of the head.
        left: steps left in the experience.
    """

    def __init__(self, head: nn.Module, classes: Iterable[int], lr: float, steps: int, share: float):
        self.classes = sorted(classes)
        self.optimiser = torch.optim.SGD(head.parameters(), lr, momentum=0.9)
        self.counts = torch.zeros(self.classes[-1] + 1, device=next(head.parameters()).device)
        self.left, self.last = steps, round(steps * share)

    @property
    def alone(self) -> bool:
        """Whether only the head learns now."""
        return self.left <= self.last

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss () of logits (n, K) for labels (n,)."""
        self.counts += torch.bincount(labels, minlength=len(self.counts))
        weights = balanced_weights(self.counts)[labels]
        return (weights * local_cross_entropy(logits, labels, self.classes)).sum() / weights.sum()

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Update the head, and clear the gradients of the model's ``optimiser`` so that it changes nothing."""
        self.optimiser.step()
        optimiser.zero_grad(set_to_none=True)
