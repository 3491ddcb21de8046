"""What methods that optimise a finite batch have in common: options, sizes, assembly; LOOP-B of every release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lra.options import Count, NonNegative, Positive, Whole
from lra.strategies.method import Method, SynthesisOptions
from lra.synthesis.options import BatchOptions

if TYPE_CHECKING:
    from lra.networks.generators import UpsamplingGenerator
    from lra.synthesis.augmentation import Augmentation
    from lra.synthesis.batches import BatchSynthesizer
    from lra.synthesis.labels import LabelPlan
    from lra.synthesis.sources import Source
    from lra.synthesis.terms import Adversarial, Term


LATENT = 256
"""The published number of latents."""


class OptimisedOptions(BatchOptions, SynthesisOptions):
    """Of the batches and how they are shown."""


class GeneratorOptions(OptimisedOptions):
    """And of a generator; 256 latents and width 128 for CIFAR as published, less for smaller images."""

    latent: Count | None = None
    width: Count | None = None


class MetaGeneratorOptions(GeneratorOptions):
    """And of one that is a good start for every batch, with the three terms it learns by, as published for Fast."""

    steps: Count = 10
    warmup: Whole = 20
    lr: Positive = 2e-3
    latent_lr: Positive = 0.01
    bn: NonNegative = 10.0
    bn_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
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
        """The sample source that minimises ``terms``.

        Args:
            source: what is optimised.
            terms: losses of each step.
            labels: classes to ask for; by default drawn uniformly and sorted.
            augment: in synthesis; by default shift and flip.
            views: augmented views of each image for the student.
            show: augmentation of each view; by default shift and flip.
        """
        from lra.synthesis import labels as plans
        from lra.synthesis.batches import BatchSynthesizer

        classes = self.setup.problem.classes
        plan = labels or plans.uniform(classes, ordered=True)
        return BatchSynthesizer(source, terms, self.setup.teacher, plan, self.options, augment, views, show)

    def generator(self) -> UpsamplingGenerator:
        """GenS of CMI, of the size that suits the images."""
        from lra.networks.generator_presets import gen_s, sized_for

        problem = self.setup.problem
        width, latent = sized_for(problem.image)
        latent = self.options.latent or min(latent, LATENT)
        return gen_s(latent, problem.image, width=self.options.width or width).to(problem.device)

    @staticmethod
    def masked_adversary(weight: float) -> Adversarial:
        """-KL_1(S ‖ T) where both name the same class: the adversary of CMI, Fast, RGAL and NAYER."""
        from lra.distances import kl
        from lra.synthesis.terms import Adversarial

        return Adversarial(weight, partial(kl, temperature=1.0), mask="agree")
