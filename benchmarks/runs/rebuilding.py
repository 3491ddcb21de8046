"""A finished run's parts, built again to be looked at: its teacher, its data, its generator."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.records import GENERATOR
from lra.benchmarks.runs.memory import sized
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, data_of
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.identity import stored_configuration
from lra.benchmarks.setup.reuse import latent_of, load_generator
from lra.benchmarks.setup.teachers import obtain
from lra.benchmarks.setup.weights_files import architecture
from lra.problem import Teacher
from lra.state import seed_everything
from lra.synthesis.synthesizer import load_reused


class NoGenerator(MissingInput):
    """A run that left no generator of latents."""


@dataclass(frozen=True)
class Rebuilt:
    """What a run worked with.

    Attributes:
        experiment: built as at its start, but for what it carried.
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
        MissingInput: if its data or teacher are not there any more.
        UsageError: if a file is damaged or of another run.
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
        raise UsageError(f"{folder / GENERATOR} is not of this run: {error}") from None
    return Rebuilt(folder, config, data, experiment, generator)


def latent_generator(parts: Rebuilt) -> tuple[nn.Module, int]:
    """The generator of a run, and how many latents it takes.

    Raises:
        NoGenerator: if it takes none, or there is none.
    """
    latent = latent_of(parts.generator)
    if parts.generator is None or latent is None:
        raise NoGenerator(f"run {parts.folder}: method {parts.config.method!r} left no generator of latents")
    return parts.generator, latent
