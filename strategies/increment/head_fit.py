"""Refit the head after every experience, so that it separates old and new classes by real features of both.

What is kept of a class once its data are gone is the mean and covariance of its features.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lra.anatomy import classifier
from lra.features import FeatureTap
from lra.randomness import normal
from lra.state import in_mode
from lra.strategies.increment.options import HeadFitOptions


class Spread(NamedTuple):
    """The first two moments of the features of a class."""

    mean: Tensor
    """(d,)."""
    covariance: Tensor
    """(d, d), unbiased."""


class ClassFeatures:
    """A normal distribution of features for every class met, which can follow the model as it changes.

    The features of a class can be measured only while its data are available. How they change later is estimated from
    images available at both times, as an affine map from features before to features after (Gomez-Villa et al.,
    "learnable drift compensation", ECCV 2024, after Yu et al., CVPR 2020).

    Args:
        ridge: how strongly the map is pulled towards the identity, relative to the mean variance of features; > 0.

    Attributes:
        known: the distribution of each class.
    """

    def __init__(self, ridge: float = 0.01):
        self.ridge = ridge
        self.known: dict[int, Spread] = {}

    @property
    def size(self) -> int:
        """How many numbers are kept."""
        return sum(mean.numel() + covariance.numel() for mean, covariance in self.known.values())

    def measure(self, features: Tensor, classes: Tensor) -> None:
        """Learn from features (n, d) of images of the classes (n,), two or more of each.

        Raises:
            ValueError: for a class with one image, which has no covariance.
        """
        for label in classes.unique().tolist():
            own = features[classes == label]
            if len(own) < 2:
                raise ValueError(f"class {label} has a single image: the covariance of its features takes two or more")
            self.known[label] = Spread(own.mean(dim=0), torch.cov(own.T).reshape(own.shape[1], own.shape[1]))

    def follow(self, before: Tensor, after: Tensor) -> None:
        """Move all classes as the features of some images have moved, from ``before`` (n, d) to ``after`` (n, d).

        With the map x -> b̄ + Wᵀ(x - ā) that minimises E‖b - b̄ - Wᵀ(a - ā)‖² + λ‖W - 1‖²_F, λ the ``ridge`` times the
        mean variance of a, mean μ becomes b̄ + Wᵀ(μ - ā), and covariance Σ becomes WᵀΣW plus the covariance that W
        leaves unexplained. Computed in double precision.
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
        """A function that draws features of k ``classes`` from their current distributions.

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
            noise = normal(len(classes), each, means.shape[1], device=means.device).to(means.dtype)
            features = means[:, None] + noise @ roots.mT
            return features.flatten(0, 1), torch.arange(len(classes), device=means.device).repeat_interleave(each)

        return draw


@torch.no_grad()
def features_of(model: nn.Module, images: Tensor, batch: int = 512) -> Tensor:
    """Penultimate features (n, d) of ``images`` (n, C, H, W), with BatchNorm in evaluation mode."""
    watched = []
    with in_mode(model, False), FeatureTap(model, images.shape[1:]) as tap:
        for part in images.split(batch):
            model(part)
            watched.append(tap.features)
    return torch.cat(watched)


class Former(NamedTuple):
    """What is available from before an experience."""

    model: nn.Module
    images: Tensor


class HeadFit:
    """Keeps the distributions of the classes in feature space, and fits the head to them.

    A head trained on real images of new classes and synthetic ones of old classes also learns to tell real from
    synthetic, so real images of old classes are taken for new ones. Here the head sees features of real images only:
    those of a class are measured while its data are available, follow the model (`ClassFeatures`), and are drawn from a
    normal distribution once the data are gone (Zhang et al., "SLCA", ICCV 2023). This costs d + d² numbers per class.

    Args:
        options: of the fit.

    Attributes:
        features: distributions of all classes met.
    """

    def __init__(self, options: HeadFitOptions):
        self.options = options
        self.features = ClassFeatures()

    def after_experience(self, model: nn.Module, data: AvalancheDataset, old: Former | None = None) -> None:
        """Move old classes with the ``model``, measure the new ones from their ``data``, and fit the head.

        Args:
            model: after the experience.
            data: of the experience.
            old: the model before it, and synthetic images (n, C, H, W) of that model's classes; ``None`` after the
                first experience.
        """
        device = next(model.parameters()).device
        batches = [(x, y) for x, y, *_ in DataLoader(data.eval(), 512)]
        images, classes = (torch.cat(column).to(device) for column in zip(*batches, strict=True))
        features = features_of(model, images)
        if old is not None:
            before = features_of(old.model, torch.cat([images, old.images]))
            self.features.follow(before, torch.cat([features, features_of(model, old.images)]))
        self.features.measure(features, classes)
        if old is not None:
            self._fit(classifier(model, images.shape[1:]))

    def _fit(self, head: nn.Module) -> None:
        """Minimise the cross-entropy over the classes met, equally often each, on fresh features in every step."""
        classes, steps = sorted(self.features.known), self.options.align_steps
        optimiser = torch.optim.Adam(head.parameters(), self.options.align_lr, fused=True)
        annealed = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        draw = self.features.drawing(classes)
        for _ in range(steps):
            features, named = draw(self.options.align_each)
            optimiser.zero_grad()
            F.cross_entropy(head(features)[:, classes], named).backward()
            optimiser.step()
            annealed.step()
        optimiser.zero_grad()
