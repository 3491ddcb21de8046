"""What a distillation method is to the rest: options, and one `Method.build` that puts its parts together.

`OnlineMethod` and `OptimisedMethod` are what most methods derive from: those with an online generator, and those
that optimise a finite batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from lra.options import (
    AdversarialOptions,
    BatchOptions,
    Count,
    Fraction,
    NonNegative,
    OneHotOptions,
    Positive,
    TripletOptions,
    Whole,
)

if TYPE_CHECKING:
    from avalanche.core import SupervisedPlugin
    from torch import nn

    from lra.distances import Distance
    from lra.distillation.objective import Objective
    from lra.networks.generators import UpsamplingGenerator
    from lra.problem import Problem, Teacher
    from lra.strategies.evaluation import Measure
    from lra.synthesis.augmentation import Augmentation
    from lra.synthesis.batches import BatchSynthesizer
    from lra.synthesis.labels import LabelPlan
    from lra.synthesis.online import OnlineGenerator
    from lra.synthesis.sources import Source
    from lra.synthesis.synthesizer import Synthesizer
    from lra.synthesis.terms import Adversarial, Term
    from lra.synthesis.terms.term import Weighing

LATENT = 256
"""The published number of latents of every method that optimises a generator against one batch."""


@dataclass(frozen=True)
class Setup:
    """What methods and plugins are built from."""

    problem: Problem
    teacher: Teacher
    distance: Distance
    """Between student and teacher logits, for the student's loss and for adversarial terms that are to match it."""
    batch_size: int
    """New images per student step."""
    steps: int
    """Student steps per experience."""
    experiences: int
    """Experiences in the run."""
    experiences_per_epoch: int
    source: Synthesizer | None = None
    """What makes the samples, for plugins, which are built after it."""

    @property
    def epochs(self) -> int:
        """Epochs in the run, the last of them perhaps short."""
        return -(-self.experiences // self.experiences_per_epoch)


@dataclass(frozen=True)
class Parts:
    """What a method brings to a run."""

    synthesizer: Synthesizer
    """Makes the samples, with its losses and optimiser, for the stream."""
    objective: Objective
    """What the student minimises.

    What it learns itself (`Objective.parameters`) joins the student's optimiser: it gets the gradient of the
    acquisition and retention losses at the weights these were taken at, and is no part of the look-ahead.
    """
    plugins: Sequence[SupervisedPlugin] = ()
    """Plugins of the strategy, after those that replay: a curriculum, say; most methods have none."""
    measures: Sequence[Measure] = ()
    """What the method alone has to measure."""


class SynthesisOptions(TripletOptions):
    """The base of every method's options: terms that can be added to any synthesis."""

    without_batchnorm: ClassVar[str] = "synthesis.bn=0"
    """The settings with which the method asks for no BatchNorm."""

    @property
    def needs_batchnorm(self) -> bool:
        """Whether these settings ask for the teacher's BatchNorm statistics."""
        return False


class StatisticsOptions(SynthesisOptions):
    """The base of options with a term of the teacher's BatchNorm statistics."""

    bn: NonNegative = 1.0
    """Weight of the distance to the teacher's BatchNorm statistics."""

    @property
    def needs_batchnorm(self) -> bool:
        """Whether that term has a weight."""
        return self.bn > 0


class BatchNormOptions(OneHotOptions, StatisticsOptions):
    """The base of options with that term beside the one of the teacher's confidence."""


class Method(ABC):
    """How samples are made, under a paper's name.

    Class attributes:
        name: as typed after ``--method``.
        paper: where it is published.
        Options: its hyperparameters, with the published values as defaults.
        defaults: published settings outside of synthesis, by section of the configuration; those of ``replay`` by the
            replay's name.
        memory: the replay of its paper.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Options: ClassVar[type[SynthesisOptions]]
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    memory: ClassVar[str] = "none"

    def __init__(self, setup: Setup, options: Any):
        self.setup = setup
        self.options = options

    @abstractmethod
    def build(self, student: nn.Module) -> Parts:
        """All that the method brings to a run of ``student``; ends in `parts`.

        Raises:
            ValueError: if options do not fit each other, the teacher or the student.
        """

    def parts(
        self,
        synthesizer: Synthesizer,
        objective: Objective | None = None,
        plugins: Sequence[SupervisedPlugin] = (),
        measures: Sequence[Measure] = (),
    ) -> Parts:
        """The parts of the method, with the synthesis terms that every method can have.

        Args:
            synthesizer: with the method's own terms.
            objective: what the student minimises; by default the distance of the setup, alone.
            plugins: see `Parts`.
            measures: see `Parts`.

        Raises:
            ValueError: if all weights are 0.
        """
        from lra.distillation.objective import Objective

        synthesizer.terms.append(self.options.triplet_term())
        if not any(term.weight for term in synthesizer.terms):
            raise ValueError("every weight in synthesis is 0, so there is nothing to learn for it: raise one")
        return Parts(synthesizer, objective or Objective(self.setup.distance), plugins, measures)


class OnlineOptions(SynthesisOptions):
    """Options of an online generator and its Adam."""

    lr: Positive = 1e-3
    """Rate of the Adam that makes the samples."""
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    """Decay rates of that Adam's two averages."""
    steps: Count = 1
    """Generator steps per experience."""
    latent: Count | None = None
    """Latents: as published, if the images are as large as CIFAR's; smaller for smaller ones."""
    width: Count | None = None
    """128 for CIFAR; follows the image size unless set."""
    redraws: Whole = 0
    """Show the student only samples that the teacher is sure of (TA-DFKD, AAAI 2024), drawn again at most so many
    times (20, say) until there are enough; 0: all."""


class OnlineMethod(Method):
    """A method whose samples come fresh from a generator that is trained along with the student.

    Class attributes:
        latent: the published number of latents.
    """

    latent: ClassVar[int]

    def online(
        self,
        terms: Sequence[Term],
        make: Callable[..., nn.Module] | None = None,
        kind: type[OnlineGenerator] | None = None,
        **settings: Any,
    ) -> OnlineGenerator:
        """The synthesizer that minimises ``terms``.

        Args:
            terms: losses of a generator step.
            make: builds the generator from latent, image and width; by default that of DAFL, ZSKT and DFQ.
            kind: the class of the synthesizer, if not `OnlineGenerator` itself.
            settings: further arguments of ``kind``.
        """
        import torch

        from lra.networks.generators import gen_l, sized_for
        from lra.synthesis.confidence import Filter
        from lra.synthesis.online import OnlineGenerator

        o, problem = self.options, self.setup.problem
        width, latent = sized_for(problem.image)
        latent = o.latent or min(latent, self.latent)
        generator = (make or gen_l)(latent, problem.image, width=o.width or width).to(problem.device)
        return (kind or OnlineGenerator)(
            generator,
            torch.optim.Adam(generator.parameters(), lr=o.lr, betas=o.betas, fused=True),
            terms,
            self.setup.teacher,
            latent=latent,
            batch_size=self.setup.batch_size,
            steps=o.steps,
            confident=Filter(o.redraws) if o.redraws else None,
            **settings,
        )


class OptimisedOptions(BatchOptions, SynthesisOptions):
    """Options of a method that optimises batches, and of how they are shown."""

    lr: Positive = 1e-3
    """Rate of the Adam that makes the samples."""


class GeneratorOptions(OptimisedOptions):
    """Options of a method that optimises batches by a generator.

    As published 256 latents and width 128 for CIFAR, less for smaller images.
    """

    latent: Count | None = None
    """Numbers that an image is generated from; by the size of the images if not given."""
    width: Count | None = None
    """Width of the generator; by the size of the images if not given."""


class MetaGeneratorOptions(AdversarialOptions, BatchNormOptions, GeneratorOptions):
    """Options of a generator that is a good start for every batch, with its three terms, as published for Fast."""

    steps: Count = 10
    warmup: Whole = 20
    lr: Positive = 2e-3
    latent_lr: Positive = 0.01
    """Rate of the latents, which are optimised along with the generator."""
    bn: NonNegative = 10.0
    bn_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of earlier batches in the statistics compared."""
    one_hot: NonNegative = 0.5
    adversarial: NonNegative = 1.33


def published(**schedule: Any) -> Mapping[str, Mapping[str, Any]]:
    """The settings outside of synthesis that every release shares, but for those given; add ``--replay pool``."""
    epoch = {"batch_size": 256, "steps_per_experience": 400, "experiences_per_epoch": 1, "epochs": 200}
    rate = schedule.pop("lr", 0.1)
    loss = {"kind": "kl", "temperature": 20.0}
    return {
        "student": {"lr": rate, "momentum": 0.9, "weight_decay": 1e-4, "loss": loss},
        "schedule": epoch | schedule,
    }


class OptimisedMethod(Method):
    """A method whose every experience is a finite batch of images, optimised against the teacher."""

    memory = "pool"

    def batches(
        self,
        source: Source,
        terms: Sequence[Term],
        labels: LabelPlan | None = None,
        augment: Augmentation | None = None,
        views: int = 1,
        show: Augmentation | None = None,
    ) -> BatchSynthesizer:
        """The synthesizer that minimises ``terms``.

        Args:
            source: what is optimised.
            terms: losses of each step.
            labels: classes to ask for; by default drawn uniformly and sorted.
            augment: in synthesis; by default shift and flip.
            views: augmented views of each image for the student.
            show: augmentation of each view; by default shift and flip.
        """
        from lra.synthesis import labels as plans
        from lra.synthesis.augmentation import mixing
        from lra.synthesis.batches import BatchSynthesizer

        classes = self.setup.problem.classes
        plan = labels or plans.uniform(classes, ordered=True)
        mix = mixing(self.options.cutmix, classes)
        return BatchSynthesizer(source, terms, self.setup.teacher, plan, self.options, augment, views, show, mix)

    def generator(self) -> UpsamplingGenerator:
        """GenS of CMI, of the size that suits the images."""
        from lra.networks.generators import gen_s, sized_for

        problem = self.setup.problem
        width, latent = sized_for(problem.image)
        latent = self.options.latent or min(latent, LATENT)
        return gen_s(latent, problem.image, width=self.options.width or width).to(problem.device)

    @staticmethod
    def masked_adversary(
        weight: float,
        mask: Literal["agree", "asked"] = "agree",
        reverse: bool = False,
        weigh: Weighing | None = None,
    ) -> Adversarial:
        """-KL_1(T ‖ S) where both name the same class, as in CMI, Fast, RGAL and NAYER; or with another ``mask``.

        Of ``reverse`` -KL_1(S ‖ T), as CPNet has it. See `Adversarial` for ``weigh``.
        """
        from lra.distances import kl, kl_reversed
        from lra.synthesis.terms import Adversarial

        return Adversarial(weight, partial(kl_reversed if reverse else kl, temperature=1.0), mask, weigh=weigh)
