"""What a generator that went through several tasks still knows of the first: do its old teachers recognise anything?"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.benchmarks.records import GENERATOR
from lra.benchmarks.runs.rebuilding import NoGenerator, latent_generator, rebuilt
from lra.benchmarks.tasks.task_outcome import TaskRun

PROBE = 256
"""Images per probe."""


class Recognition(NamedTuple):
    """How sure the teacher of task ``of`` is of what the generator makes after task ``after``, counted from 0."""

    after: int
    of: int
    confidence: float
    """Mean of the largest probability, in percent."""
    classes: float
    """exp of the entropy of the mean prediction: how many classes it sees, 1 to K."""


def recognition(chain: Sequence[TaskRun]) -> list[Recognition]:
    """The generator of every task of a chain before the teachers of this and all earlier tasks with such images.

    The same latents each time, evaluation mode.

    Raises:
        LraError: if a generator or a teacher is not there any more.
    """
    teachers: list[tuple[int, tuple[int, int, int], nn.Module]] = []
    found: list[Recognition] = []
    for task in sorted(chain, key=lambda run: run.index):
        if not (task.run.folder / GENERATOR).is_file():
            raise NoGenerator(f"run {task.run.folder} left no {GENERATOR}: its method has none that lasts")
        parts = rebuilt(task.run.folder)
        generator, latent = latent_generator(parts)
        teachers.append((task.index, parts.data.image, parts.teacher.network))
        latents = torch.randn(PROBE, latent, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            images = generator(latents)
        for of, image, teacher in teachers:
            if image == parts.data.image:
                found.append(Recognition(task.index, of, *answers(teacher, images)))
    return found


@torch.no_grad()
def answers(teacher: nn.Module, images: Tensor) -> tuple[float, float]:
    """Mean confidence in percent, and the effective number of classes, of a teacher on images (n, C, H, W)."""
    p = F.softmax(teacher(images), dim=1)
    mean = p.mean(dim=0)
    entropy = -(mean * mean.clamp_min(1e-12).log()).sum()
    return 100 * p.max(dim=1).values.mean().item(), entropy.exp().item()
