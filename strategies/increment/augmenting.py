"""Augmentation of the real images that an experience brings."""

from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate

from lra.synthesis.augmentation import wobbled


class AugmentPlugin(SupervisedPlugin):
    """Shows the model real images in slightly different positions (`wobbled`), anew in every step.

    It belongs before plugins that let replayed images join the minibatch, which are then left as they are.

    Args:
        strength: of the changes, see `wobbled`.
    """

    def __init__(self, strength: float = 1.0):
        super().__init__()
        self.strength = strength

    def before_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Change the images of the minibatch."""
        images, *others = strategy.mbatch
        strategy.mbatch = [wobbled(images, self.strength), *others]
