"""The head refitted after every experience, so that old and new classes are told apart by real features of both."""

from typing import NamedTuple

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lra.anatomy import classifier
from lra.features import FeatureTap
from lra.memory.class_features import ClassFeatures
from lra.preservation import in_mode
from lra.strategies.increment.options import HeadFitOptions


@torch.no_grad()
def features_of(model: nn.Module, images: Tensor, batch: int = 512) -> Tensor:
    """Penultimate features (n, d) of ``images`` (n, C, H, W), with running statistics."""
    watched = []
    with in_mode(model, False), FeatureTap(model, images.shape[1:]) as tap:
        for part in images.split(batch):
            model(part)
            watched.append(tap.features)
    return torch.cat(watched)


class Former(NamedTuple):
    """What there is of the time before an experience."""

    model: nn.Module
    images: Tensor


class HeadFit:
    """Keeps where the classes are in feature space, and fits the head to it.

    A head trained on real images of new classes and synthetic ones of old classes also learns to tell real from
    synthetic, and real images of old classes are taken for new ones. Here the head sees features of real images only:
    those of a class are measured while its data are there, follow the model (`ClassFeatures`), and are drawn from a
    normal distribution when the data are gone (Zhang et al., "SLCA", ICCV 2023). It costs d + d² numbers a class.

    Args:
        options: of the fit.

    Attributes:
        features: of all classes met.
    """

    def __init__(self, options: HeadFitOptions):
        self.options = options
        self.features = ClassFeatures()

    def after_experience(self, model: nn.Module, data: AvalancheDataset, old: Former | None = None) -> None:
        """Let old classes follow the ``model``, measure the new ones, whose ``data`` are still there, and fit the head.

        Args:
            model: as the experience leaves it.
            data: of the experience.
            old: the model before it and synthetic images (n, C, H, W) of its classes; ``None`` after the first one.
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
        """Cross-entropy of the classes met, each as often, over features drawn anew in every step."""
        classes, steps = sorted(self.features.known), self.options.align_steps
        optimiser = torch.optim.Adam(head.parameters(), self.options.align_lr)
        annealed = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        draw = self.features.drawing(classes)
        for _ in range(steps):
            features, named = draw(self.options.align_each)
            optimiser.zero_grad()
            F.cross_entropy(head(features)[:, classes], named).backward()
            optimiser.step()
            annealed.step()
        optimiser.zero_grad()
