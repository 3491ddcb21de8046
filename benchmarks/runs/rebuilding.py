"""A finished run's parts, rebuilt for inspection: its teacher, its data, its generator, and images of every kind.

The images to show a teacher are real ones, noise, and what the run and its generator made.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.records import GENERATOR, SYNTHETIC
from lra.benchmarks.runs.distillation import stored_configuration
from lra.benchmarks.runs.memory import sized
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, Labelled, data_of
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.reuse import latent_of, load_generator
from lra.benchmarks.setup.teachers import obtain
from lra.benchmarks.setup.weights_files import architecture
from lra.images import unit
from lra.networks.composed import FusedGenerator
from lra.problem import Teacher
from lra.state import seed_everything
from lra.synthesis.synthesizer import load_reused


class NoGenerator(MissingInput):
    """A run that left no generator of latents."""


@dataclass(frozen=True)
class Rebuilt:
    """What a run worked with.

    Attributes:
        experiment: built as at its start, except for what it took over.
        generator: as it was at the end, in evaluation mode; ``None`` if the run left none.
    """

    folder: Path
    config: RunConfig
    data: DataSet
    experiment: Experiment
    generator: nn.Module | None

    @property
    def teacher(self) -> Teacher:
        """The teacher."""
        return self.experiment.stream.teacher

    @property
    def teacher_name(self) -> str:
        """Name of the teacher's architecture."""
        return architecture(self.config.teacher, self.data)

    def imagine(self, n: int) -> Tensor | None:
        """``n`` images of its generator, as it made them; ``None`` if it left none."""
        return None if self.generator is None else self.experiment.stream.synthesizer.imagine(n)


def rebuilt(folder: Path) -> Rebuilt:
    """Build the parts of the run in ``folder`` again; leaves the global random states seeded with the run's seed.

    Raises:
        MissingInput: if its data or teacher are missing.
        UsageError: if a file is damaged or belongs to another run.
    """
    config = stored_configuration(folder)
    weights = load_generator(folder / GENERATOR)[0] if (folder / GENERATOR).is_file() else None
    data = data_of(config.data)
    config = sized(config, data)
    seed_everything(config.seed)
    teacher = obtain(config.teacher, data, None)
    experiment = prepare(config, data, teacher, None, lambda record: None)
    generator = None if weights is None else experiment.stream.synthesizer.generator_to_reuse()
    try:
        if generator is not None and weights is not None:
            load_reused(generator.eval(), weights)
    except ValueError as error:
        raise UsageError(f"{folder / GENERATOR} does not belong to this run: {error}") from None
    return Rebuilt(folder, config, data, experiment, generator)


def latent_generator(parts: Rebuilt) -> tuple[nn.Module, int]:
    """The generator of a run, and its number of latent dimensions.

    Raises:
        NoGenerator: if it takes no latents, or there is no generator.
    """
    latent = latent_of(parts.generator)
    if parts.generator is None or latent is None:
        raise NoGenerator(f"run {parts.folder}: method {parts.config.method!r} left no generator of latents")
    return parts.generator, latent


def real(data: Labelled, n: int) -> Labelled:
    """``n`` images as floats in [0, 1], drawn without repetition, all if there are fewer; with their classes."""
    chosen = torch.randperm(len(data.images))[:n]
    return Labelled(unit(data.images[chosen]), data.classes[chosen])


def synthetic(parts: Rebuilt, n: int) -> Tensor | None:
    """``n`` images of the last batch that the run synthesised, drawn without repetition, all if there are fewer.

    ``None`` if its method synthesises no batches.
    """
    file = parts.folder / SYNTHETIC
    if not file.is_file():
        return None
    images = load_file(file)["images"]
    return unit(images[torch.randperm(len(images))[:n]])


def made(parts: Rebuilt, n: int) -> dict[str, Tensor]:
    """``n`` images of each kind that a run left: ``synthetic``, its last batch; ``generated``, by its generator."""
    batch = synthetic(parts, n)
    count = n if batch is None else len(batch)
    found = {"synthetic": batch, "generated": parts.imagine(count)}
    return {name: images for name, images in found.items() if images is not None}


@torch.no_grad()
def half_new(old: FusedGenerator, n: int, keep: str) -> Tensor:
    """``n`` images of a fused generator with one branch of the run's, its decoder, and a new branch.

    The new branch has no running statistics yet: it normalises by the batch, the old parts by what they learnt.

    Args:
        old: the generator of a run of aeahl-rg.
        n: images.
        keep: the old branch: ``"second"``, which a later task would reuse, or ``"first"``, which is dropped.
    """
    new = copy.deepcopy(old.first)
    for module in new.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm2d)):
            module.reset_parameters()
    fused = FusedGenerator(new.train(), copy.deepcopy(getattr(old, keep)).eval(), old.decoder)
    return fused(torch.randn(n, old.latent))


def data_sources(parts: Rebuilt, n: int) -> Mapping[str, Tensor]:
    """What an attacker may have, by name: (n, C, H, W) in [0, 1] each, all normalised alike by the teacher.

    Real images where there are some to train on, noise, and what the run made; of one of aeahl-rg in place of its
    generator's images those of a new one with parts of it (the five sources of its bit-flip study).
    """
    found = {"noise": torch.rand(n, *parts.data.image)}
    with suppress(MissingInput):
        found = {"real": real(parts.data.load("train"), n).images} | found
    images = made(parts, n)
    if isinstance(parts.generator, FusedGenerator):
        del images["generated"]
        found["new + dropped branch"] = half_new(parts.generator, n, "first")
        found["new + reused branch"] = half_new(parts.generator, n, "second")
    return found | images
