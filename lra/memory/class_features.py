"""Where a model puts its classes: mean and covariance of each one's features, which stay when the data go."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Spread(NamedTuple):
    """How the features of a class are distributed, as far as two moments tell."""

    mean: Tensor
    """(d,)."""
    covariance: Tensor
    """(d, d), unbiased."""


class ClassFeatures:
    """A normal distribution of features for every class met, which can follow the model as it changes.

    The features of a class can be measured only while its data are there. What the model does to them later is
    estimated from images that are there at both times, as an affine map from features before to features after
    (Gomez-Villa et al., "learnable drift compensation", ECCV 2024, after Yu et al., CVPR 2020).

    Args:
        ridge: how firmly the map is held to the identity, relative to the mean variance of the features; > 0.

    Attributes:
        known: the distribution of each class.
    """

    def __init__(self, ridge: float = 0.01):
        self.ridge = ridge
        self.known: dict[int, Spread] = {}

    def measure(self, features: Tensor, classes: Tensor) -> None:
        """Take features (n, d) of images of the classes (n,), two or more of each.

        Raises:
            ValueError: for a class with one image, which has no covariance.
        """
        for label in classes.unique().tolist():
            own = features[classes == label]
            if len(own) < 2:
                raise ValueError(f"class {label} has a single image: the covariance of its features takes two or more")
            self.known[label] = Spread(own.mean(dim=0), torch.cov(own.T).reshape(own.shape[1], own.shape[1]))

    def follow(self, before: Tensor, after: Tensor) -> None:
        """Move all classes as the features of some images moved, from ``before`` (n, d) to ``after`` (n, d).

        With the map x -> b̄ + Wᵀ(x - ā) that minimises E‖b - b̄ - Wᵀ(a - ā)‖² + λ‖W - 1‖²_F, λ the ``ridge`` times the
        mean variance of a, mean μ becomes b̄ + Wᵀ(μ - ā), and covariance Σ becomes WᵀΣW and what W leaves unexplained.
        Computed in double precision.
        """
        a, b = before.double(), after.double()
        a_mean, b_mean = a.mean(dim=0), b.mean(dim=0)
        a, b = a - a_mean, b - b_mean
        identity = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
        variance = a.T @ a / len(a)
        held = self.ridge * variance.diagonal().mean() * identity
        moved = torch.linalg.solve(variance + held, a.T @ b / len(a) + held)
        left = b - a @ moved
        noise = left.T @ left / len(a)
        for label, (mean, covariance) in self.known.items():
            self.known[label] = Spread(
                ((mean.double() - a_mean) @ moved + b_mean).to(mean.dtype),
                (moved.T @ covariance.double() @ moved + noise).to(mean.dtype),
            )

    def drawing(self, classes: list[int]) -> Callable[[int], tuple[Tensor, Tensor]]:
        """What draws features of k ``classes`` as they now are.

        Returns:
            n -> features (n·k, d), n of each class, and for each row the index of its class in the list.

        Raises:
            KeyError: for a class that was not measured.
        """
        means = torch.stack([self.known[label].mean for label in classes])
        # A covariance of few images is singular, which Cholesky's factor does not allow.
        variances, axes = torch.linalg.eigh(torch.stack([self.known[label].covariance for label in classes]))
        roots = axes * variances.clamp_min(0).sqrt()[:, None]

        def draw(each: int) -> tuple[Tensor, Tensor]:
            noise = torch.randn(len(classes), each, means.shape[1]).to(means)
            features = means[:, None] + noise @ roots.mT
            return features.flatten(0, 1), torch.arange(len(classes), device=means.device).repeat_interleave(each)

        return draw
