"""What a student learns from real images: the bound that a data-free one is held against. Not data-free itself.

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
    """Puts training images, with the teacher's answers, in the place of all that the student would have learnt from.

    The run stays what it is otherwise: its objective, its optimiser, its schedule, as many images a step. Its sample
    source is updated for nothing, and what is said of forgetting is about that source's images.

    Args:
        images: of a training split, (n, C, H, W), bytes or floats in [0, 1]; drawn with replacement.
        teacher: answers for them.
        options: how they are shaken first.
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
        """A batch of as many real images."""
        where = torch.randint(len(self.images), (len(batch.images),))
        images = self.augment(unit(self.images[where])).to(batch.images.device)
        return Batch(images, self.teacher.label(images))

    def state_dict(self) -> State:
        """Nothing: what is drawn depends on the global random state alone."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
