"""What a run leaves of itself: ``result.json`` at its end, and pictures of what its generator makes on the way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from lra.benchmarks.files import write_atomically
from lra.benchmarks.runs.machine import environment, peak_memory
from lra.benchmarks.runs.run_folder import SCHEMA
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.synthesis.synthesizer import Synthesizer

Record = dict[str, Any]


def result(
    experiment: Experiment,
    teacher: TrainedTeacher,
    records: Sequence[Record],
    seconds: float,
    config_hash: str,
    rollbacks: Sequence[Record] = (),
) -> Record:
    """The result of an experiment that is trained, from it, the records of its evaluations and its rollbacks."""
    config = experiment.config
    parameters = sum(parameter.numel() for parameter in experiment.strategy.model.parameters())
    return {
        "schema": SCHEMA,
        "status": "finished",
        "method": config.method,
        "replay": config.replay["name"],
        "meta": config.meta.enabled,
        "seed": config.seed,
        "dataset": config.data.name,
        "teacher": teacher.record(),
        "student": {"name": config.student.network, "parameters": parameters},
        **({} if experiment.quantization is None else {"quantization": experiment.quantization}),
        **experiment.evaluation.outcome(records),
        "rollbacks": list(rollbacks),
        **_stopped(experiment),
        "cost": _cost(experiment) | {"seconds": seconds, "peak_memory_mb": peak_memory(config.device)},
        "config_hash": config_hash,
        "versions": environment()["versions"],
    }


def _stopped(experiment: Experiment) -> Record:
    """What ended the run before its budget, if anything did."""
    by = experiment.strategy.stopped
    return {} if by is None else {"stopped": {"by": by, "of_experiences": experiment.stream.length}}


def _cost(experiment: Experiment) -> Record:
    stream = experiment.stream
    return {
        "student_steps": experiment.strategy.clock.train_iterations,
        "experiences": stream.position,
        "generator_steps": stream.synthesizer.generator_steps,
        "images_generated": stream.synthesizer.images_generated,
        "teacher_queries": stream.teacher.queries,
    }


class Samples:
    """Writes strips of fresh samples, ``step-000900.png``, at evaluations 1, 2, 4, 8, … and the last.

    Args:
        folder: where to.
        synthesizer: draws them, without a trace.
        count: images per strip; 0 writes nothing.
    """

    def __init__(self, folder: Path, synthesizer: Synthesizer, count: int):
        self.folder = folder
        self.synthesizer = synthesizer
        self.count = count

    def take(self, evaluation: int, step: int, last: bool = False) -> None:
        """Write a strip, if the evaluation (from 0) is one to be pictured, as the ``last`` is."""
        number = evaluation + 1
        if self.count == 0 or (number & (number - 1) and not last):
            return
        images = shown(self.synthesizer.peek(self.count).clamp(0, 1).cpu())
        grid = make_grid(images, nrow=self.count, padding=1, pad_value=1.0)
        pixels = grid.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        write_atomically(self.folder / f"step-{step:06d}.png", lambda file: _png(pixels, file))


def shown(images: Tensor) -> Tensor:
    """Images as a picture can have them, grey or RGB: of other channels their mean."""
    return images if images.shape[1] in (1, 3) else images.mean(dim=1, keepdim=True)


def _png(pixels: object, file: object) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(file, format="PNG")  # type: ignore[arg-type]
