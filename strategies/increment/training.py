"""How long Avalanche's strategies train here, and on which minibatches."""

from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training import VAETraining
from avalanche.training.templates import SupervisedTemplate


class AutoencoderTraining(VAETraining):
    """Avalanche's, but for a last minibatch of a single image that nothing is replayed beside: BatchNorm cannot
    normalise it, so it is left out, and the image is seen in other epochs."""

    def make_train_dataloader(self, **settings: Any) -> None:
        """With every minibatch that can be trained on."""
        alone = self.clock.train_exp_counter == 0 and len(self.adapted_dataset) % self.train_mb_size == 1
        super().make_train_dataloader(**settings | {"drop_last": alone})


class StopAfter(SupervisedPlugin):
    """Ends every experience after so many steps, whatever the size of its data."""

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
