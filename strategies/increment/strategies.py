"""The strategies to compare on a class-incremental benchmark, by name: Avalanche's own, and data-free replay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import BasePlugin, SupervisedPlugin
from avalanche.models import MlpVAE
from avalanche.models.generator import VAE_loss
from avalanche.training import GenerativeReplay, LwF, Naive, VAETraining
from avalanche.training.plugins import (
    EvaluationPlugin,
    GenerativeReplayPlugin,
    LRSchedulerPlugin,
    ReplayPlugin,
)
from avalanche.training.supervised import Cumulative
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from lra.options import Count, NonNegative, Positive
from lra.strategies.evaluation import QuietEvaluation
from lra.strategies.increment.augmenting import AugmentPlugin
from lra.strategies.increment.datafree import DataFreeReplayOptions, DataFreeReplayPlugin
from lra.strategies.increment.triplets import TripletPlugin
from lra.synthesis.options import Strength


class IncrementOptions(DataFreeReplayOptions):
    """Of all strategies; each takes what concerns it."""

    lr: Positive = 0.05
    """Rate of SGD with momentum 0.9, annealed to 0 in every experience."""
    weight_decay: NonNegative = 1e-4
    """Of that SGD."""
    minibatch: Count = 32
    """Real images per step."""
    augment: Strength = 0.0
    """Strength of random turns, shears, scales and shifts of the real images; 1 is up to 10 degrees and a 16th of the
    side, 4 the most."""
    student_triplet: NonNegative = 0.0
    """Weight of the triplets of the model's features (RGAL: 0.1)."""
    memory: Count = 200
    """Images that buffered replay keeps."""
    lwf_alpha: NonNegative = 1.0
    """Weight of LwF's distillation."""
    lwf_temperature: Positive = 2.0
    """Its temperature."""
    vae_latent: Count = 2
    """Latents of the autoencoder that Avalanche's generative replay learns from the real data; its default is 2."""
    vae_lr: Positive = 0.01
    """Rate of that autoencoder's Adam."""


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

    def build(
        self, kind: Callable[..., SupervisedTemplate], plugins: Sequence[BasePlugin[Any]] = (), **settings: object
    ) -> SupervisedTemplate:
        """A strategy of Avalanche's class ``kind`` that takes ``steps`` annealed steps in every experience."""
        o = self.options
        optimiser = torch.optim.SGD(self.model.parameters(), o.lr, momentum=0.9, weight_decay=o.weight_decay)
        annealed = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        augmented = [AugmentPlugin(o.augment)] if o.augment else []
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
                LRSchedulerPlugin(annealed, step_granularity="iteration"),
                StopAfter(self.steps),
            ],
            evaluator=self.evaluator,
            device=self.device,
            **settings,
        )


class AutoencoderTraining(VAETraining):
    """Avalanche's, but for a last minibatch of a single image that nothing is replayed beside: BatchNorm cannot
    normalise it, so it is left out, and the image is seen in other epochs."""

    def make_train_dataloader(self, **settings: Any) -> None:
        """With every minibatch that can be trained on."""
        alone = self.clock.train_exp_counter == 0 and len(self.adapted_dataset) % self.train_mb_size == 1
        super().make_train_dataloader(**settings | {"drop_last": alone})


class StopAfter(SupervisedPlugin):
    """Ends every experience after so many steps, whatever the size of its data."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps
        self.taken = 0

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Count from the start."""
        self.taken = 0

    def after_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Stop when it is time."""
        self.taken += 1
        if self.taken == self.steps:
            strategy.stop_training()


def naive(plan: Plan) -> SupervisedTemplate:
    """Plain training on each experience: the lower bound."""
    return plan.build(Naive)


def joint(plan: Plan) -> SupervisedTemplate:
    """All real data so far in every experience (Avalanche's Cumulative): the upper bound."""
    return plan.build(Cumulative)


def lwf(plan: Plan) -> SupervisedTemplate:
    """Avalanche's learning without forgetting (Li and Hoiem, 2016): distillation on the new data."""
    return plan.build(LwF, alpha=plan.options.lwf_alpha, temperature=plan.options.lwf_temperature)


def buffer(plan: Plan) -> SupervisedTemplate:
    """Avalanche's replay of kept real images, balanced by experience."""
    return plan.build(Naive, [ReplayPlugin(mem_size=plan.options.memory)])


def avalanche_generative(plan: Plan) -> SupervisedTemplate:
    """Avalanche's generative replay (Shin et al., 2017): an autoencoder taught the real data as they pass."""
    return plan.build(GenerativeReplay, generator_strategy=_autoencoder(plan))


def avalanche_generative_plugin(plan: Plan) -> SupervisedTemplate:
    """Avalanche's ``GenerativeReplayPlugin`` by itself, as its issue 1138 has it ("100% forgetting").

    The plugin replays from the autoencoder it is given, and leaves teaching it to a second one,
    ``TrainGeneratorAfterExpPlugin``, that only the strategy ``GenerativeReplay`` brings along. Without it the
    replayed images are those of initial weights.
    """
    return plan.build(Naive, [GenerativeReplayPlugin(generator_strategy=_autoencoder(plan))])


def _autoencoder(plan: Plan) -> VAETraining:
    """Avalanche's default generator, in the size of the images, and what trains it where something does."""
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
    """Old classes replayed by a generator trained from the previous model alone."""
    return plan.build(Naive, [DataFreeReplayPlugin(plan.options)])


def rgal(plan: Plan) -> SupervisedTemplate:
    """The same with RGAL's triplets, in the generator's training and in the model's."""
    given = plan.options
    weights = {name: 0.1 for name in ("triplet", "student_triplet") if name not in given.model_fields_set}
    options = given.model_copy(update=weights)
    plugins = [DataFreeReplayPlugin(options), TripletPlugin(options.student_triplet)]
    return plan.build(Naive, plugins)


STRATEGIES: dict[str, Callable[[Plan], SupervisedTemplate]] = {
    "naive": naive,
    "lwf": lwf,
    "joint": joint,
    "buffer": buffer,
    "avalanche-generative": avalanche_generative,
    "avalanche-generative-plugin": avalanche_generative_plugin,
    "generative": generative,
    "rgal": rgal,
}
"""Name, as typed after ``--strategy``, to strategy."""

DATA_FREE = ("generative", "rgal")
"""Those that can take the LRA step."""
