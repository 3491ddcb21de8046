"""The interface of a distillation method: its options, and one `Method.build` that puts its parts together.

Most methods derive from `OnlineMethod`, if they have an online generator, or from `OptimisedMethod`, if they optimise
finite batches.
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
"""The published number of latent dimensions of every method that optimises a generator for a single batch."""


@dataclass(frozen=True)
class Setup:
    """Everything that methods and plugins are built from."""

    problem: Problem
    teacher: Teacher
    distance: Distance
    """Distance between student and teacher logits, for the student's loss and for adversarial terms that match it."""
    batch_size: int
    """New images per student step."""
    steps: int
    """Student steps per experience."""
    experiences: int
    """Experiences in the run."""
    experiences_per_epoch: int
    source: Synthesizer | None = None
    """What makes the samples; set for plugins, which are built after it."""

    @property
    def epochs(self) -> int:
        """Epochs in the run, the last of them perhaps short."""
        return -(-self.experiences // self.experiences_per_epoch)


@dataclass(frozen=True)
class Parts:
    """What a method contributes to a run."""

    synthesizer: Synthesizer
    """Makes the samples, with its losses and optimiser, for the stream."""
    objective: Objective
    """What the student minimises.

    Its own parameters (`Objective.parameters`) join the student's optimiser: their gradient is that of the acquisition
    and retention losses, each at the student weights where it is computed; they are not part of the look-ahead.
    """
    plugins: Sequence[SupervisedPlugin] = ()
    """Plugins of the strategy, called after the replays, such as a curriculum; most methods have none."""
    measures: Sequence[Measure] = ()
    """Measurements specific to the method."""


class SynthesisOptions(TripletOptions):
    """Terms that can be added to the synthesis of any method."""

    without_batchnorm: ClassVar[str] = "synthesis.bn=0"
    """The settings under which the method needs no BatchNorm."""

    @property
    def needs_batchnorm(self) -> bool:
        """Whether these settings need the teacher's BatchNorm statistics."""
        return False


class StatisticsOptions(SynthesisOptions):
    """The term on the teacher's BatchNorm statistics."""

    bn: NonNegative = 1.0
    """Weight of the distance to the teacher's BatchNorm statistics."""

    @property
    def needs_batchnorm(self) -> bool:
        """Whether that term has a weight."""
        return self.bn > 0


class BatchNormOptions(OneHotOptions, StatisticsOptions):
    """The terms on the teacher's BatchNorm statistics and on its confidence."""


class Method(ABC):
    """How samples are made, under a paper's name.

    Class attributes:
        name: as typed after ``--method``.
        paper: where it is published.
        Options: its hyperparameters, with the published values as defaults.
        defaults: published settings outside of synthesis, by section of the configuration; those of ``replay`` by
            replay name.
        memory: the replay its paper uses.
        retention: the replay of a run that names none.
        for_copies: whether its settings are for a student that begins as a quantised copy of its teacher.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Options: ClassVar[type[SynthesisOptions]]
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    memory: ClassVar[str] = "none"
    retention: ClassVar[str] = "none"
    for_copies: ClassVar[bool] = False

    def __init__(self, setup: Setup, options: Any):
        self.setup = setup
        self.options = options

    @abstractmethod
    def build(self, student: nn.Module) -> Parts:
        """Everything the method contributes to a run of ``student``; ends in a call of `parts`.

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
            objective: what the student minimises; by default the setup's distance alone.
            plugins: see `Parts`.
            measures: see `Parts`.

        Raises:
            ValueError: if all weights are 0.
        """
        from lra.distillation.objective import Objective

        synthesizer.terms.append(self.options.triplet_term())
        if not any(term.weight for term in synthesizer.terms):
            raise ValueError("all weights of synthesis are 0, so it has nothing to learn: raise one")
        return Parts(synthesizer, objective or Objective(self.setup.distance), plugins, measures)


class OnlineOptions(SynthesisOptions):
    """Options of an online generator and its Adam."""

    lr: Positive = 1e-3
    """Learning rate of synthesis (Adam)."""
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    """β1 and β2 of the Adam used in synthesis."""
    steps: Count = 1
    """Generator steps per experience."""
    latent: Count | None = None
    """Latent dimensions; if not given, as published for images of CIFAR's size, fewer for smaller ones."""
    width: Count | None = None
    """Width of the generator in channels; if not given, 128 for CIFAR, and by the size of the images otherwise."""
    redraws: Whole = 0
    """Show the student only samples the teacher is confident in (TA-DFKD, AAAI 2024): draw up to this many more
    batches (20, say) until there are enough; 0 shows all samples."""


class OnlineMethod(Method):
    """A method whose samples come fresh from a generator that is trained along with the student.

    Its runs replay a reservoir unless told otherwise, which at equal seconds is better than finetuning where much is
    forgotten (``benchmarks/results/retention.md``).

    Class attributes:
        latent: the published number of latent dimensions.
    """

    retention = "reservoir"
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
            make: builds the generator from latent, image and width; by default the one of DAFL, ZSKT and DFQ.
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
    """Options of a method that optimises batches of images, and of how these are shown to the student."""

    lr: Positive = 1e-3
    """Learning rate of synthesis (Adam)."""


class GeneratorOptions(OptimisedOptions):
    """Options of a method that optimises batches through a generator.

    As published, 256 latent dimensions and width 128 for CIFAR; less for smaller images.
    """

    latent: Count | None = None
    """Latent dimensions; by the size of the images if not given."""
    width: Count | None = None
    """Width of the generator in channels; by the size of the images if not given."""


class MetaGeneratorOptions(AdversarialOptions, BatchNormOptions, GeneratorOptions):
    """Options of a generator meta-learnt as the start of every batch, with its three terms, as published for Fast."""

    steps: Count = 10
    warmup: Whole = 20
    lr: Positive = 2e-3
    latent_lr: Positive = 0.01
    """Learning rate of the latents, which are optimised together with the generator."""
    bn: NonNegative = 10.0
    bn_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of earlier batches in the BatchNorm statistics that are compared."""
    one_hot: NonNegative = 0.5
    adversarial: NonNegative = 1.33


def published(**schedule: Any) -> Mapping[str, Mapping[str, Any]]:
    """The settings outside of synthesis that all releases share, except those given; add ``--replay pool``."""
    epoch = {"batch_size": 256, "steps_per_experience": 400, "experiences_per_epoch": 1, "epochs": 200}
    rate = schedule.pop("lr", 0.1)
    loss = {"kind": "kl", "temperature": 20.0}
    return {
        "student": {"lr": rate, "momentum": 0.9, "weight_decay": 1e-4, "loss": loss},
        "schedule": epoch | schedule,
    }


class OptimisedMethod(Method):
    """A method in which each experience is a finite batch of images, optimised against the teacher."""

    memory = retention = "pool"

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
            labels: target classes; by default drawn uniformly and sorted.
            augment: augmentation in synthesis; by default shift and flip.
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
        """CMI's GenS, sized for the images."""
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
        """-KL_1(T ‖ S) where both predict the same class, as in CMI, Fast, RGAL and NAYER; or with another ``mask``.

        With ``reverse``, -KL_1(S ‖ T), as in CPNet. See `Adversarial` for ``weigh``.
        """
        from lra.distances import kl, kl_reversed
        from lra.synthesis.terms import Adversarial

        return Adversarial(weight, partial(kl_reversed if reverse else kl, temperature=1.0), mask, weigh=weigh)
