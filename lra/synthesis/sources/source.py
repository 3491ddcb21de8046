"""What every source is: it makes one batch of synthetic images at a time and is optimised; and those that start anew.

`Source.begin`, then `Source.images` and `Source.update` in turn, then `Source.end`. What the loss is, and which
iterate to keep, is the business of `lra.synthesis.batches`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lra.images import per_channel
from lra.networks.composed import FusedGenerator, TwoLatentGenerator
from lra.networks.generators import UpsamplingGenerator, reset_parameters_dcgan
from lra.problem import Problem
from lra.randomness import normal
from lra.state import State
from lra.synthesis.synthesizer import Reusable

BETAS = (0.5, 0.999)
"""Adam's, in every release that optimises a generator against one batch."""


class Source(Reusable, ABC):
    """Makes one batch at a time and improves it by gradient steps.

    Attributes:
        batches: begun so far.
    """

    def __init__(self) -> None:
        self.batches = 0

    @abstractmethod
    def begin(self, labels: Tensor) -> None:
        """Start a batch of images that are to show ``labels`` (n,), or probabilities (n, K)."""

    @abstractmethod
    def images(self) -> Tensor:
        """The batch as it stands, (n, C, H, W) in [0, 1], with a graph to what is optimised."""

    def made(self) -> tuple[Tensor, Sequence[Tensor]]:
        """`images`, and with the same graph maps (n, c, h, w) inside the generator that terms look at; mostly none."""
        return self.images(), ()

    @abstractmethod
    def update(self, loss: Tensor) -> None:
        """One step down the gradient of ``loss``, of the latest images."""

    def end(self) -> None:
        """The batch is finished."""

    def imagine(self, labels: Tensor) -> Tensor | None:
        """Images of ``labels`` by the generator that outlives batches, in evaluation mode; ``None`` if none does."""
        return None

    def state_dict(self) -> State:
        """What lives on from batch to batch."""
        return {"batches": self.batches}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.batches = state["batches"]


def descend(optimiser: torch.optim.Optimizer | None, loss: Tensor) -> None:
    """One step of ``optimiser`` down the gradient of ``loss``."""
    assert optimiser is not None
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


class Pixels(Source):
    """The images themselves, optimised in the teacher's normalised space (DeepInversion, ZSKD, SoftTarget).

    Args:
        problem: shapes, and the normalisation that learning rate and initial noise count in.
        lr: Adam's.
        betas: Adam's.
        restart: begin every batch from noise; ``False`` goes on from the last one, as released for ZSKD.
    """

    def __init__(self, problem: Problem, lr: float, betas: tuple[float, float] = (0.5, 0.99), restart: bool = True):
        super().__init__()
        self.problem = problem
        self.lr, self.betas, self.restart = lr, betas, restart
        channels = problem.image[0]
        self._mean = per_channel(problem.mean, channels, "mean").to(problem.device)
        self._std = per_channel(problem.std, channels, "std").to(problem.device)
        self._leaf: Tensor | None = None
        self._optimiser: torch.optim.Optimizer | None = None

    def begin(self, labels: Tensor) -> None:
        """Noise of the data's mean and spread, cut to [0, 1]."""
        self.batches += 1
        if self.restart or self._leaf is None or len(self._leaf) != len(labels):
            self._leaf = normal(len(labels), *self.problem.image, device=self.problem.device).requires_grad_(True)
            self._optimiser = torch.optim.Adam([self._leaf], lr=self.lr, betas=self.betas)
        self._cut()

    def images(self) -> Tensor:
        """(n, C, H, W)."""
        assert self._leaf is not None
        return self._mean + self._std * self._leaf

    def update(self, loss: Tensor) -> None:
        """An Adam step, cut to [0, 1]."""
        descend(self._optimiser, loss)
        self._cut()

    @torch.no_grad()
    def _cut(self) -> None:
        assert self._leaf is not None
        self._leaf.copy_(torch.clamp(self._leaf, -self._mean / self._std, (1 - self._mean) / self._std))

    def state_dict(self) -> State:
        """Nothing but a count, unless batches continue one another."""
        goes_on = not self.restart and self._leaf is not None and self._optimiser is not None
        pixels = self._leaf.detach().clone() if goes_on and self._leaf is not None else None
        optimiser = self._optimiser.state_dict() if goes_on and self._optimiser is not None else None
        return super().state_dict() | {"pixels": pixels, "optimiser": optimiser}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        if state["pixels"] is not None:
            self._leaf = state["pixels"].clone().requires_grad_(True)
            self._optimiser = torch.optim.Adam([self._leaf], lr=self.lr, betas=self.betas)
            self._optimiser.load_state_dict(state["optimiser"])


class LatentSource(Source):
    """A generator and the latents of one batch, optimised together; the generator starts anew with every batch.

    CMI and RGAL: weights from N(0, 0.02) as DCGAN.

    Args:
        generator: latents (n, z) -> images (n, C, H, W); always in training mode.
        lr: Adam's, of the generator.
        latent_lr: Adam's, of the latents; the generator's if not given.
    """

    def __init__(
        self,
        generator: UpsamplingGenerator | FusedGenerator | TwoLatentGenerator,
        lr: float,
        latent_lr: float | None = None,
    ):
        super().__init__()
        self.generator = generator
        self.lr = lr
        self.latent_lr = lr if latent_lr is None else latent_lr
        self._latents: Tensor | None = None
        self._optimiser: torch.optim.Optimizer | None = None

    def begin(self, labels: Tensor) -> None:
        """A fresh generator and fresh latents; the labels only say how many."""
        self.batches += 1
        generator = self.prepared()
        generator.train()
        device = next(generator.parameters()).device
        self._latents = normal(len(labels), self.generator.latent, device=device).requires_grad_(True)
        latents = {"params": [self._latents], "lr": self.latent_lr}
        self._optimiser = torch.optim.Adam([*self.groups(generator), latents], betas=BETAS)

    def networks(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    def groups(self, generator: nn.Module) -> list[dict[str, Any]]:
        """The generator's parameters as an optimiser takes them, in groups with their learning rates."""
        return [{"params": list(generator.parameters()), "lr": self.lr}]

    def prepared(self) -> nn.Module:
        """The generator that the new batch is optimised with."""
        reset_parameters_dcgan(self.generator)
        return self.generator

    def images(self) -> Tensor:
        """(n, C, H, W)."""
        return self.generator(self._latents)

    def update(self, loss: Tensor) -> None:
        """An Adam step of generator and latents."""
        descend(self._optimiser, loss)
