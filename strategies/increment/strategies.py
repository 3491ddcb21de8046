"""The strategies to compare on a class-incremental benchmark, by name: Avalanche's own, and data-free replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lra.options import Options
from lra.strategies.increment.options import (
    ABDOptions,
    DeepInversionLwFOptions,
    DeepInversionOptions,
    IncrementOptions,
    RDFCILOptions,
)

if TYPE_CHECKING:
    import torch
    from avalanche.core import BasePlugin
    from avalanche.training import VAETraining
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.templates import SupervisedTemplate
    from torch import nn


Part = TypeVar("Part", bound=Options)


@dataclass
class Plan:
    """What strategies are built from.

    Attributes:
        model: with one head, images in [0, 1] -> logits.
        image: (channels, height, width).
        steps: optimiser steps per experience.
        options: of the strategy.
        evaluator: with the measures to take.
        device: where to train.
    """

    model: nn.Module
    image: tuple[int, int, int]
    steps: int
    options: IncrementOptions
    evaluator: EvaluationPlugin
    device: torch.device

    def part(self, kind: type[Part]) -> Part:
        """Those of the plan's options that belong to the class ``kind``."""
        return kind.model_validate({name: getattr(self.options, name) for name in kind.model_fields})

    def build(
        self, kind: Callable[..., SupervisedTemplate], plugins: Sequence[BasePlugin[Any]] = (), **settings: object
    ) -> SupervisedTemplate:
        """A strategy of Avalanche's class ``kind`` that takes ``steps`` steps in every experience."""
        import torch
        from avalanche.training.plugins import LRSchedulerPlugin
        from torch import nn

        from lra.strategies.increment.plugins import AugmentPlugin, StopAfter, as_photographs
        from lra.synthesis.augmentation import wobbled

        o = self.options
        optimiser = torch.optim.SGD(self.model.parameters(), o.lr, momentum=0.9, weight_decay=o.weight_decay)
        schedule: torch.optim.lr_scheduler.LRScheduler
        if o.milestones:
            stages = [round(self.steps * part) for part in o.milestones]
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, stages, gamma=0.1)
        else:
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        augmented: list[BasePlugin[Any]] = []
        if o.augment:
            augmented.append(AugmentPlugin(partial(wobbled, strength=o.augment)))
        if o.photographs:
            augmented.append(AugmentPlugin(as_photographs))
        return kind(
            model=self.model,
            optimizer=optimiser,
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=o.minibatch,
            train_epochs=self.steps,  # no more than these can be needed; StopAfter ends them
            eval_mb_size=512,
            plugins=[
                *augmented,
                *plugins,
                LRSchedulerPlugin(schedule, step_granularity="iteration"),
                StopAfter(self.steps),
            ],
            evaluator=self.evaluator,
            device=self.device,
            **settings,
        )


def naive(plan: Plan) -> SupervisedTemplate:
    """Plain training on each experience: the lower bound."""
    from avalanche.training import Naive

    return plan.build(Naive)


def joint(plan: Plan) -> SupervisedTemplate:
    """All real data so far in every experience (Avalanche's Cumulative): the upper bound."""
    from avalanche.training.supervised import Cumulative

    return plan.build(Cumulative)


def lwf(plan: Plan) -> SupervisedTemplate:
    """Avalanche's learning without forgetting (Li and Hoiem, 2016): distillation on the new data."""
    from avalanche.training import LwF

    return plan.build(LwF, alpha=plan.options.lwf_alpha, temperature=plan.options.lwf_temperature)


def lwf_mc(plan: Plan) -> SupervisedTemplate:
    """Learning without forgetting with a sigmoid for every class (LwF.MC; Rebuffi et al., 2017)."""
    from avalanche.training import Naive

    from lra.strategies.increment.lwf_mc import LwFMCPlugin

    return plan.build(Naive, [LwFMCPlugin()])


def buffer(plan: Plan) -> SupervisedTemplate:
    """Avalanche's replay of stored real images, balanced by experience."""
    from avalanche.training import Naive
    from avalanche.training.plugins import ReplayPlugin

    return plan.build(Naive, [ReplayPlugin(mem_size=plan.options.memory)])


def avalanche_generative(plan: Plan) -> SupervisedTemplate:
    """Avalanche's generative replay (Shin et al., 2017): an autoencoder trained on the real data as they arrive."""
    from avalanche.training import GenerativeReplay

    return plan.build(GenerativeReplay, generator_strategy=_autoencoder(plan))


def avalanche_generative_plugin(plan: Plan) -> SupervisedTemplate:
    """Avalanche's ``GenerativeReplayPlugin`` by itself, as reported in its issue 1138 ("100% forgetting").

    The plugin replays from the autoencoder it is given, and leaves training it to a second plugin,
    ``TrainGeneratorAfterExpPlugin``, which only the strategy ``GenerativeReplay`` adds. Without that, the replayed
    images come from an untrained autoencoder.
    """
    from avalanche.training import Naive
    from avalanche.training.plugins import GenerativeReplayPlugin

    return plan.build(Naive, [GenerativeReplayPlugin(generator_strategy=_autoencoder(plan))])


def _autoencoder(plan: Plan) -> VAETraining:
    """Avalanche's default generator, sized for the images, with the strategy that trains it, if one is used."""
    import torch
    from avalanche.models import MlpVAE
    from avalanche.models.generator import VAE_loss
    from avalanche.training.plugins import GenerativeReplayPlugin

    from lra.strategies.evaluation import QuietEvaluation
    from lra.strategies.increment.plugins import AutoencoderTraining, StopAfter

    o = plan.options
    if o.minibatch < 2:
        raise ValueError("Avalanche's autoencoder normalises over the minibatch: minibatch must be 2 or more")
    # The plugin by itself never trains it, and what trains a model is all that moves it in Avalanche.
    autoencoder = MlpVAE(plan.image, nhid=o.vae_latent, device=plan.device).to(plan.device)
    return AutoencoderTraining(
        model=autoencoder,
        optimizer=torch.optim.Adam(autoencoder.parameters(), lr=o.vae_lr, weight_decay=1e-4),
        criterion=VAE_loss,
        train_mb_size=o.minibatch,
        train_epochs=plan.steps,
        device=plan.device,
        plugins=[GenerativeReplayPlugin(), StopAfter(plan.steps)],
        evaluator=QuietEvaluation(),
    )


def generative(plan: Plan) -> SupervisedTemplate:
    """Old classes replayed from a generator trained from the previous model alone."""
    from avalanche.training import Naive

    from lra.strategies.increment.datafree import DataFreeReplayPlugin

    return plan.build(Naive, [DataFreeReplayPlugin(plan.options, steps=plan.steps)])


def rgal(plan: Plan) -> SupervisedTemplate:
    """Data-free replay with RGAL's triplets, in the generator's training and in the model's."""
    from avalanche.training import Naive

    from lra.strategies.increment.datafree import DataFreeReplayPlugin
    from lra.strategies.increment.plugins import TripletPlugin

    plugins = [DataFreeReplayPlugin(plan.options, steps=plan.steps), TripletPlugin(plan.options.student_triplet)]
    return plan.build(Naive, plugins)


def fecam(plan: Plan) -> SupervisedTemplate:
    """FeCAM, the control that stops training: a frozen backbone, and statistics of every class's features."""
    from avalanche.training import Naive

    from lra.strategies.increment.fecam import FeCAMPlugin

    return plan.build(Naive, [FeCAMPlugin(plan.options)])


def deepinversion(plan: Plan) -> SupervisedTemplate:
    """DeepInversion in increments (Yin et al., 2020): images that invert the old model are replayed and distilled."""
    from avalanche.training import Naive

    from lra.strategies.increment.deepinversion import DeepInversionPlugin

    return plan.build(Naive, [DeepInversionPlugin(plan.part(DeepInversionOptions))])


def abd(plan: Plan) -> SupervisedTemplate:
    """Always Be Dreaming (Smith et al., 2021): local cross-entropy, a head trained on all, weighted features."""
    from avalanche.training import Naive

    from lra.strategies.increment.abd import ABDPlugin

    return plan.build(Naive, [ABDPlugin(plan.part(ABDOptions))])


def rdfcil(plan: Plan) -> SupervisedTemplate:
    """R-DFCIL (Gao et al., 2022): relational and hard distillation, and finally a balanced head."""
    from avalanche.training import Naive

    from lra.strategies.increment.rdfcil import RDFCILPlugin

    return plan.build(Naive, [RDFCILPlugin(plan.part(RDFCILOptions), steps=plan.steps)])


STRATEGIES: dict[str, Callable[[Plan], SupervisedTemplate]] = {
    "naive": naive,
    "lwf": lwf,
    "lwf-mc": lwf_mc,
    "joint": joint,
    "buffer": buffer,
    "avalanche-generative": avalanche_generative,
    "avalanche-generative-plugin": avalanche_generative_plugin,
    "generative": generative,
    "rgal": rgal,
    "fecam": fecam,
    "deepinversion": deepinversion,
    "deepinversion-lwf": deepinversion,
    "abd": abd,
    "r-dfcil": rdfcil,
}
"""Name, as typed after ``--strategy``, to strategy."""

OWN_OPTIONS: dict[str, dict[str, Any]] = {
    "rgal": {"triplet": 0.1, "student_triplet": 0.1},
    "deepinversion": DeepInversionOptions().model_dump(),
    "deepinversion-lwf": DeepInversionLwFOptions().model_dump(),
    "abd": ABDOptions().model_dump(),
    "r-dfcil": RDFCILOptions().model_dump(),
}
"""Defaults of a strategy that differ from those of `IncrementOptions`."""

DATA_FREE = ("generative", "rgal")
"""Strategies that can take the LRA step."""

GENERATING = (*DATA_FREE, "deepinversion", "deepinversion-lwf", "abd", "r-dfcil")
"""Strategies that train a generator from the model before each experience but the first."""

TRAINED_ONCE = ("fecam",)
"""Strategies that train in the first experience only."""

RESUMABLE = ("naive", "lwf", "lwf-mc", "joint", *GENERATING, *TRAINED_ONCE)
"""Strategies whose state between experiences can be saved; Avalanche does not expose what the others keep, images or an
autoencoder."""
