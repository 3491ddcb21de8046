"""What a distillation method is to the rest: options, a sample source, and now and then a plugin of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lra.synthesis.options import TripletOptions

if TYPE_CHECKING:
    from avalanche.core import SupervisedPlugin
    from torch import nn

    from lra.distances import Distance
    from lra.distillation.objective import Objective
    from lra.problem import Problem
    from lra.strategies.metrics import Measure
    from lra.synthesis.synthesizer import Synthesizer
    from lra.teacher import Teacher


@dataclass(frozen=True)
class Setup:
    """What methods and plugins are built from."""

    problem: Problem
    teacher: Teacher
    distance: Distance
    """Of student and teacher logits: for the student's loss, and for adversarial terms that are to match it."""
    batch_size: int
    """New images per student step."""
    steps: int
    """Student steps per experience."""
    experiences: int
    """Experiences in the run."""
    experiences_per_epoch: int

    @property
    def epochs(self) -> int:
        """Epochs in the run, the last of them perhaps short."""
        return -(-self.experiences // self.experiences_per_epoch)


class SynthesisOptions(TripletOptions):
    """The base of every method's options: terms that can be added to any synthesis."""


class Method(ABC):
    """How samples are made, under a paper's name.

    An experiment asks for `objective`, `sample_source`, `plugins` and `measures`, once each and in this order, so
    that a later part may refer to an earlier one (a projection shared by both sides, a clock that moves a weight).

    Class attributes:
        name: as typed after ``--method``.
        paper: where it is published.
        Options: its hyperparameters, with the published values as defaults.
        defaults: published settings outside of synthesis, by section of the configuration.
        memory: the replay of its paper.
        without_batchnorm: the settings with which it asks for no BatchNorm.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Options: ClassVar[type[SynthesisOptions]]
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    memory: ClassVar[str] = "none"
    without_batchnorm: ClassVar[str] = "synthesis.bn=0"

    def __init__(self, setup: Setup, options: Any):
        self.setup = setup
        self.options = options

    @abstractmethod
    def synthesizer(self) -> Synthesizer:
        """The sample source with its losses and optimiser."""

    def sample_source(self) -> Synthesizer:
        """The `synthesizer`, with the terms that every method can have."""
        synthesizer = self.synthesizer()
        synthesizer.terms.append(self.options.triplet_term())
        return synthesizer

    def objective(self, student: nn.Module) -> Objective:
        """What ``student`` minimises.

        What the objective learns itself (`Objective.parameters`) joins the student's optimiser: it gets the
        gradient of the acquisition and retention losses at the weights these were taken at, and is no part of
        the look-ahead.
        """
        from lra.distillation.objective import Objective

        return Objective(self.setup.distance)

    @property
    def needs_batchnorm(self) -> bool:
        """Whether these options ask for the teacher's BatchNorm statistics: a positive weight ``bn``."""
        return getattr(self.options, "bn", 0) > 0

    def plugins(self) -> list[SupervisedPlugin]:
        """Plugins that belong to the method, such as a curriculum; most have none."""
        return []

    def measures(self) -> list[Measure]:
        """What the method alone has to measure; asked for last."""
        return []
