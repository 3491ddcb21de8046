"""Plugins for ordinary Avalanche strategies: how long they train, on which minibatches, and terms on features."""

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import MultiTaskModule
from avalanche.training import VAETraining
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lra.features import FeatureTap
from lra.relations import TripletSampler, triplet_loss
from lra.state import State
from lra.synthesis.augmentation import Augmentation, flipped, relit, shifted


class CarryingPlugin(SupervisedPlugin):
    """A plugin that carries something from one experience to the next in addition to the model.

    Attributes:
        generator_steps: taken in all experiences so far.
        class_statistics: how many numbers measured on the data of classes are kept.
    """

    generator_steps: int = 0
    companions: Sequence[torch.optim.Optimizer] = ()
    """Optimisers that step together with the strategy's."""

    @property
    def class_statistics(self) -> int:
        """0, unless a subclass keeps some."""
        return 0

    @abstractmethod
    def state_dict(self) -> State:
        """What is carried."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Restore it, before the next experience."""

    @abstractmethod
    def before_training(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Refuse unsuitable models before any time is spent on them.

        Raises:
            ValueError: for such a model.
        """


class Known(nn.Module):
    """A model's logits for some of its classes only.

    Args:
        model: images -> logits (n, K).
        classes: those it has learnt.
    """

    def __init__(self, model: nn.Module, classes: Sequence[int]):
        super().__init__()
        self.model = model
        self.classes = list(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, k) in the order of the classes."""
        return self.model(images)[:, self.classes]


def joined(minibatch: Sequence[Tensor], images: Tensor, classes: Tensor) -> list[Tensor]:
    """Avalanche's minibatch (images, classes, …, tasks) with replayed images (m, C, H, W) of ``classes`` (m,) last."""
    own, labels, *others, tasks = minibatch
    of_first = tasks.new_zeros(len(classes))
    return [torch.cat([own, images]), torch.cat([labels, classes]), *others, torch.cat([tasks, of_first])]


def refuse_unfit(plugin: SupervisedPlugin, model: nn.Module, batchnorm: bool) -> None:
    """Refuse a ``model`` from which no generator can be trained for ``plugin``.

    Raises:
        ValueError: for a model with several heads, or, with ``batchnorm``, without BatchNorm running statistics.
    """
    heads = [type(module).__name__ for module in model.modules() if isinstance(module, MultiTaskModule)]
    if heads:
        raise ValueError(
            f"{type(plugin).__name__} needs a model with a single head, and {heads[0]} has one for each task: "
            "end the model in an IncrementalClassifier, or in a Linear layer of all classes"
        )
    if batchnorm and not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ValueError(
            f"{type(plugin).__name__} compares BatchNorm statistics, and the model keeps none: "
            "set bn=0, or choose a model with BatchNorm"
        )


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode whose weights get no gradient."""
    return deepcopy(model).eval().requires_grad_(False)


class StopAfter(SupervisedPlugin):
    """Ends every experience after ``steps`` steps, whatever the size of its data."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps
        self.taken = 0

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Count from the start."""
        self.taken = 0

    def after_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Stop when it is time."""
        self.taken += 1
        if self.taken == self.steps:
            strategy.stop_training()


class AutoencoderTraining(VAETraining):
    """Avalanche's, except that a last minibatch of a single image with nothing replayed beside it is left out, since
    BatchNorm cannot normalise it; the image is seen in other epochs."""

    def make_train_dataloader(self, **settings: Any) -> None:
        """Load every minibatch that can be trained on."""
        alone = self.clock.train_exp_counter == 0 and len(self.adapted_dataset) % self.train_mb_size == 1
        super().make_train_dataloader(**settings | {"drop_last": alone})


class AugmentPlugin(SupervisedPlugin):
    """Augments the real images of every step.

    It belongs before plugins that add replayed images to the minibatch, so that these are not augmented.

    Args:
        change: the augmentation, of images (n, C, H, W).
    """

    def __init__(self, change: Augmentation):
        super().__init__()
        self.change = change

    def before_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Augment the images of the minibatch."""
        images, *others = strategy.mbatch
        strategy.mbatch = [self.change(images), *others]


def as_photographs(images: Tensor) -> Tensor:
    """Images (n, C, H, W) in [0, 1], each independently changed in light, shifted, and mirrored half of the time."""
    return flipped(shifted(relit(images), min(images.shape[2:]) // 8))


class FeaturePlugin(SupervisedPlugin):
    """A plugin whose loss term needs the model's penultimate features in addition to its outputs."""

    _tap: FeatureTap | None = None

    def looks_at_features(self) -> bool:
        """Whether it needs the features of the next pass."""
        return True

    def before_forward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Record the features."""
        if self.looks_at_features():
            self._tap = FeatureTap(strategy.model, strategy.mb_x.shape[1:]).__enter__()

    def after_forward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Stop recording."""
        if self._tap is not None:
            self._tap.__exit__()

    def features(self) -> Tensor | None:
        """Features (n, d) of the last pass, with their graph, once; ``None`` if they were not recorded."""
        tap, self._tap = self._tap, None
        return None if tap is None else tap.features


class TripletPlugin(FeaturePlugin):
    """Pull images of the same class together and push different classes apart, in the model's penultimate features.

    Liang and Fu, IJCV 2024. Labels are those of the minibatch, so that with a `DataFreeReplayPlugin` replayed samples
    have the classes that the old model predicts. Negatives are drawn by distances between features, not between logits
    as in the paper, because logits say nothing where a growing head masks its unused units. Where old samples are
    synthetic and new ones real, telling synthetic from real is an easy way of keeping their classes apart; no class has
    samples of both kinds.

    Args:
        weight: factor in the sum.
        margin: of the hinge.
    """

    def __init__(self, weight: float, margin: float = 0.2):
        super().__init__()
        self.weight, self.margin = weight, margin
        self._sampler = TripletSampler()

    def before_backward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Add the term to the loss."""
        features = self.features()
        if features is None:
            return
        triplets = self._sampler(features, strategy.mb_y)
        strategy.loss = strategy.loss + self.weight * triplet_loss([features], triplets, self.margin)
