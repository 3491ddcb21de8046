"""What a generator that went through several tasks still knows of the first: do its old teachers recognise anything?

To ask them takes torch and seconds, so the answers are read back while the generators are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel

from lra.benchmarks.files import sha256
from lra.benchmarks.records import GENERATOR
from lra.benchmarks.tasks.task_outcome import TaskRun, modes

if TYPE_CHECKING:
    from torch import Tensor, nn

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


class Recognitions(BaseModel):
    """What a report across tasks keeps of it."""

    generators: str = ""
    """Digest of the generators of all tasks, whose files name the teachers too; empty if one left none."""
    recognition: dict[str, list[list[Recognition]]] = {}
    """By mode, one list for each seed; nothing for a method without a generator that lasts."""


def recognitions(runs: Sequence[TaskRun], report: Path) -> Recognitions:
    """What old teachers recognise in the chains of ``runs``; from an earlier ``report``, if of the same generators.

    Raises:
        LraError: if the teachers have to be asked and one, or its data, is not there any more.
    """
    chains = {mode: _chains([run for run in runs if run.reuse == mode]) for mode in modes(runs)}
    files = [[[run.run.folder / GENERATOR for run in chain] for chain in found] for found in chains.values()]
    if not all(file.is_file() for found in files for chain in found for file in chain):
        return Recognitions()
    digests = {mode: [list(map(sha256, chain)) for chain in found] for mode, found in zip(chains, files, strict=True)}
    generators = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    try:
        before = Recognitions.model_validate_json(report.read_bytes())
    except (OSError, ValueError):  # There is none, or it is damaged and written anew.
        before = Recognitions()
    if before.generators == generators:
        return before
    from lra.benchmarks.runs.rebuilding import NoGenerator

    try:
        answers = {mode: list(map(recognition, found)) for mode, found in chains.items()}
    except NoGenerator:
        answers = {}
    return Recognitions(generators=generators, recognition=answers)


def _chains(runs: Sequence[TaskRun]) -> list[list[TaskRun]]:
    """Of each seed."""
    return [[run for run in runs if run.seed == seed] for seed in dict.fromkeys(run.seed for run in runs)]


def recognition(chain: Sequence[TaskRun]) -> list[Recognition]:
    """The generator of every task of a chain before the teachers of this and all earlier tasks with such images.

    The same latents each time, evaluation mode.

    Raises:
        LraError: if a teacher or its data are not there any more, or a generator is none of latents.
    """
    import torch

    from lra.benchmarks.runs.rebuilding import latent_generator, rebuilt

    teachers: list[tuple[int, tuple[int, int, int], nn.Module]] = []
    found: list[Recognition] = []
    for task in sorted(chain, key=lambda run: run.index):
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


def answers(teacher: nn.Module, images: Tensor) -> tuple[float, float]:
    """Mean confidence in percent, and the effective number of classes, of a teacher on images (n, C, H, W)."""
    import torch

    with torch.no_grad():
        p = teacher(images).softmax(dim=1)
    mean = p.mean(dim=0)
    entropy = -(mean * mean.clamp_min(1e-12).log()).sum()
    return 100 * p.max(dim=1).values.mean().item(), entropy.exp().item()
