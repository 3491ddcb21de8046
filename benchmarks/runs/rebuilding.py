"""A finished run's parts, built again to be looked at: its teacher, its data, its generator."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.runs.memory import sized
from lra.benchmarks.setup.assemble import stored_configuration
from lra.benchmarks.setup.carrying import GENERATOR, load_generator
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, data_of
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.teachers import obtain
from lra.state import seed_everything
from lra.synthesis.keepsakes import take_up
from lra.teacher import Teacher


class NoGenerator(MissingInput):
    """A run that left no generator of latents."""


@dataclass(frozen=True)
class Rebuilt:
    """What a run worked with.

    Attributes:
        experiment: built as at its start, but for what it carried.
        generator: as it was at the end, in evaluation mode.
    """

    folder: Path
    config: RunConfig
    data: DataSet
    experiment: Experiment
    generator: nn.Module

    @property
    def teacher(self) -> Teacher:
        """The teacher."""
        return self.experiment.stream.teacher

    @property
    def latent(self) -> int:
        """How many latents the generator takes."""
        return int(self.generator.latent)  # type: ignore[arg-type]


def rebuilt(folder: Path) -> Rebuilt:
    """Build the parts of the run in ``folder`` again; leaves the global random states seeded with the run's seed.

    Raises:
        NoGenerator: if it left none.
        MissingInput: if its data or teacher are not there any more.
        UsageError: if a file is damaged or of another run.
    """
    config = stored_configuration(folder)
    if not (folder / GENERATOR).is_file():
        raise NoGenerator(f"run {folder} left no {GENERATOR}: it is unfinished, or its method has none that lasts")
    weights, _ = load_generator(folder / GENERATOR)
    data = data_of(config.data)
    config = sized(config, data)
    seed_everything(config.seed)
    teacher = obtain(config.teacher, data, None)
    experiment = prepare(config, data, teacher, None, lambda record: None)
    generator = experiment.stream.synthesizer.keepsake()
    if generator is None or not hasattr(generator, "latent"):
        raise NoGenerator(f"run {folder}: method {config.method!r} has no generator of latents that lasts")
    try:
        take_up(generator, weights)
    except ValueError as error:
        raise UsageError(f"{folder / GENERATOR} is not of this run: {error}") from None
    return Rebuilt(folder, config, data, experiment, generator.eval())
