"""What a student learns from real images, for comparison with a data-free one. Not data-free itself.

lra-bench run --replay none --plugin lra.benchmarks.analyses.real_images:RealImages --set plugin.images=digits
"""

from typing import Self

import torch
from torch import Tensor

from lra.benchmarks.setup.datasets import data_set
from lra.images import unit
from lra.options import AugmentationOptions
from lra.problem import Batch, Teacher
from lra.state import State
from lra.strategies.method import Setup
from lra.strategies.plugins import Alteration


class RealImages(Alteration):
    """Replaces every batch that the student would learn from by as many training images, labelled by the teacher.

    Everything else in the run stays the same: objective, optimiser, schedule. Its sample source is still updated, to no
    effect, and forgetting is measured on images of that source.

    Args:
        images: of a training split, (n, C, H, W), bytes or floats in [0, 1]; drawn with replacement.
        teacher: labels them.
        options: how they are augmented first.
    """

    def __init__(self, images: Tensor, teacher: Teacher, options: AugmentationOptions):
        super().__init__()
        self.images = images
        self.teacher = teacher
        self.augment = options.crop_and_flip()

    @classmethod
    def build(cls, setup: Setup, images: str, flip: bool = True, shift: int | None = None) -> Self:
        """From the options of a run.

        Args:
            setup: the problem.
            images: a data set as ``--dataset`` names it.
            flip: see `AugmentationOptions`.
            shift: likewise.

        Raises:
            ValueError: if its images are of another size than the run's.
            LraError: if there is no such data set, or nothing to train on in it.
        """
        found = data_set(images).load("train").images
        if found.shape[1:] != torch.Size(setup.problem.image):
            sizes = ("x".join(map(str, size)) for size in (found.shape[1:], setup.problem.image))
            raise ValueError("plugin.images: its images are {} and the run's are {}".format(*sizes))
        return cls(found, setup.teacher, AugmentationOptions(flip=flip, shift=shift))

    def altered(self, batch: Batch) -> Batch:
        """A batch of as many real images, with the teacher's logits."""
        where = torch.randint(len(self.images), (len(batch.images),))
        images = self.augment(unit(self.images[where])).to(batch.images.device)
        return Batch(images, self.teacher.label(images))

    def state_dict(self) -> State:
        """Nothing: what is drawn depends on the global random state alone."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing, as there is no state."""
