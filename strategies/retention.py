"""The retention axis: replay by name, its options, and how to build it from a `Setup`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from lra.options import Count, Fraction, MemoryGeneratorOptions, NonNegative, Options, PoolOptions, Whole
from lra.strategies.method import Setup

if TYPE_CHECKING:
    from lra.memory.buffers import Buffer
    from lra.memory.priorities import Priorities
    from lra.strategies.strategy import Replay


class ReplayOptions(Options):
    """Options common to all replays."""

    summary: ClassVar[str]
    held: ClassVar[str | None] = None
    """Name of the option that gives the total number of images held, if there is one; several processes share it."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.125
    """Replayed images per step, as a fraction of the new ones (published: an eighth); at least one image."""

    def size(self, setup: Setup) -> int:
        """Replayed images per student step."""
        return max(1, int(setup.batch_size * self.fraction))

    @abstractmethod
    def build(self, setup: Setup) -> Replay | None:
        """The plugin, or ``None`` for no replay."""


class PriorityOptions(ReplayOptions):
    """Which of the stored images are drawn: those on which student and teacher differed most (after SSD-KD; ours)."""

    priority: NonNegative = 0.0
    """Exponent a of an image's probability P ∝ δ^a, with its distance δ when it was last drawn; 0 draws all alike
    (Schaul et al., ICLR 2016: 0.6). Its loss is weighted by (N·P)^-β, over the largest such weight, to correct this."""
    priority_correction: Fraction = 0.4
    """β at the start; it grows linearly to 1 over the run."""

    def priorities(self, setup: Setup) -> Priorities | None:
        """The priorities, if there are to be any."""
        from lra.memory.priorities import Priorities

        draws = setup.experiences * setup.steps
        return Priorities(self.priority, self.priority_correction, draws) if self.priority else None


class BufferOptions(PriorityOptions):
    """Options of a buffer of stored images with the teacher's logits."""

    place: Literal["beside", "instead"] = "beside"
    """Stored images beside a whole batch of new ones, as published; or, ours, instead of as many new ones: a step then
    costs less than one without replay, since a stored image needs neither generator nor teacher."""

    def buffered(self, buffer: Buffer, setup: Setup, first: int = 1, period: int = 1) -> Replay:
        """The plugin that replays ``buffer``."""
        from lra.strategies.replay import BufferReplay

        return BufferReplay(buffer, self.size(setup), first, period, self.place == "instead")


class NoReplay(ReplayOptions):
    """Finetuning: nothing is retained."""

    summary = "nothing is replayed: the finetuning control"

    def build(self, setup: Setup) -> None:
        """No plugin."""


class MemoryBank(BufferOptions):
    """MB-DFKD's memory bank (Binici et al., WACV 2022)."""

    summary = "ring of past batches with the teacher's logits (MB-DFKD)"

    slots: Count = 10
    """Number of stored batches."""
    period: Count = 5
    """Epochs from one stored batch to the next; the first is stored after the first epoch."""

    def build(self, setup: Setup) -> Replay:
        """A ring whose slots are as large as a replayed batch."""
        from lra.memory.buffers import Ring

        epoch = setup.experiences_per_epoch
        ring = Ring(self.slots, self.size(setup), self.priorities(setup))
        return self.buffered(ring, setup, first=epoch, period=self.period * epoch)


class ReservoirReplay(BufferOptions):
    """A uniform sample of everything seen."""

    summary = "uniform sample of everything seen (algorithm R)"
    held = "capacity"

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.25
    capacity: Count = 1280
    """Most images held; by default the published size of MB-DFKD's bank."""

    def build(self, setup: Setup) -> Replay:
        """A reservoir that is offered the new samples of the last step of every experience."""
        from lra.memory.buffers import Reservoir

        return self.buffered(Reservoir(self.capacity, self.priorities(setup)), setup)


class PoolOfImages(PriorityOptions, PoolOptions):
    """The image pool of the methods that optimise batches, available to every method."""

    summary = "the images made so far, all or the most useful, in bytes (what ADI, CMI, Fast, RGAL, NAYER do)"
    held = "capacity"

    share: Literal["uniform", "beside"] | Fraction = "uniform"
    """Old images in a step: in place of new ones, by their fraction of all images made (uniform) or by a given
    fraction; or beside a whole batch of new ones, as many as ``fraction`` says."""
    least: Count = 1
    """Minimum number of new images per step."""

    def build(self, setup: Setup) -> Replay:
        """An empty pool."""
        from lra.memory.buffers import ImagePool
        from lra.strategies.replay import PoolReplay

        if self.least > setup.batch_size:
            raise ValueError(f"replay.least = {self.least} and a step has {setup.batch_size} images: lower it")
        if self.policy == "useful" and self.capacity < setup.problem.classes:
            raise ValueError(
                f"replay.capacity = {self.capacity}: a pool of useful images balances {setup.problem.classes} classes, "
                "give it at least as many places"
            )
        size = self.size(setup) if self.share == "beside" else 0
        pool = ImagePool(self, self.priorities(setup))
        return PoolReplay(pool, setup.teacher, setup.batch_size, self.share, size, self.least)


class GenerativeMemory(ReplayOptions, MemoryGeneratorOptions):
    """PRE-DFKD's memory generator (Binici et al., AAAI 2022)."""

    summary = "memory generator with latent self-inference (PRE-DFKD)"

    updates: Count = 4
    """Memory updates per experience, one in each of its first student steps."""
    warmup: Whole = 1
    """Experiences before the first replay; 0, as published, replays from an untrained memory at first."""
    latent: Count | None = None
    """Latent dimensions of the memory generator; by the size of the images if not given."""
    width: Count | None = None
    """Width of the memory generator in channels; by the size of the images if not given."""

    def build(self, setup: Setup) -> Replay:
        """A memory generator and an encoder, sized for the images."""
        from lra.memory.generator import Encoder, MemoryGenerator
        from lra.networks.generators import memory_generator, sized_for
        from lra.strategies.replay import GenerativeReplay

        problem = setup.problem
        width, latent = sized_for(problem.image)
        width, latent = self.width or width, self.latent or latent
        memory = MemoryGenerator(
            memory_generator(latent, problem.image, mean=problem.mean, std=problem.std, width=width).to(problem.device),
            Encoder(latent, problem.image, mean=problem.mean, std=problem.std, width=width).to(problem.device),
            setup.teacher,
            latent,
            self,
        )
        return GenerativeReplay(memory, self.size(setup), self.updates, self.warmup)


class AveragedGenerator(ReplayOptions):
    """MAD's moving average of the generator (Do et al., NeurIPS 2022), for methods with a persistent generator.

    Compared with plain training, each step also generates the replayed images (as many as ``fraction`` says) and passes
    them through teacher and student.
    """

    summary = "moving average of the generator itself: no images, nothing trained (MAD)"

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    decay: Fraction = 0.95
    """α of the average, which is updated once per experience: its half-life is ln ½ / ln α experiences."""
    warmup: Whole = 1
    """Experiences before the first replay."""

    def build(self, setup: Setup) -> Replay:
        """The average of the source's generator.

        Raises:
            ValueError: if the source has no generator to average.
        """
        from lra.strategies.replay import EMAReplay

        if setup.source is None:
            raise ValueError(
                "replay ema needs the source of samples: give Setup the method's synthesizer as its source"
            )
        return EMAReplay(setup.source, setup.teacher, self.size(setup), self.decay, self.warmup)


REPLAYS: dict[str, type[ReplayOptions]] = {
    "none": NoReplay,
    "memory": MemoryBank,
    "reservoir": ReservoirReplay,
    "pool": PoolOfImages,
    "generative": GenerativeMemory,
    "ema": AveragedGenerator,
}
"""The options of each replay, by the name typed after ``--replay``."""

PAPER = "paper"
"""Stands for the replay that the method's own paper uses, whichever that is."""
