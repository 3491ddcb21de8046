"""Ranges of a quantised student, set by the first experiences of the stream and then kept."""

from avalanche.core import SupervisedPlugin

from lra.quantization.network import calibrate
from lra.strategies.strategy import DataFreeDistillation


class Calibration(SupervisedPlugin):
    """Lets a batch of each of the first experiences move the ranges of the student's inputs, the very first anew.

    What it has done is in the student's buffers, so that there is nothing else to be saved.

    Args:
        experiences: how many; 0 keeps the ranges that the student came with.
        images: of each.
    """

    def __init__(self, experiences: int, images: int):
        super().__init__()
        self.experiences, self.images = experiences, images

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Observe the student on images of the experience that opens."""
        experience = strategy.synthesis
        if experience is not None and experience.current_experience < self.experiences:
            images = experience.draw(self.images).images
            calibrate(strategy.model, [images], anew=experience.current_experience == 0)
