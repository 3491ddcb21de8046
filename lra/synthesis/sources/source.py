"""The interface of a source, which is optimised to make one batch of images at a time; and sources that start anew.

The calls are `Source.begin`, then `Source.images` and `Source.update` in turn, then `Source.end`. The loss, and which
iterate to keep, are up to `lra.synthesis.batches`.
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
"""Adam's betas, in every release that optimises a generator for a single batch."""


class Source(Reusable, ABC):
    """Makes one batch at a time and improves it by gradient steps.

    Attributes:
        batches: number begun so far.
    """

    def __init__(self) -> None:
        self.batches = 0

    @abstractmethod
    def begin(self, labels: Tensor) -> None:
        """Start a batch of images with target ``labels`` (n,), or probabilities (n, K)."""

    @abstractmethod
    def images(self) -> Tensor:
        """The current batch, (n, C, H, W) in [0, 1], with a graph to what is optimised."""

    def made(self) -> tuple[Tensor, Sequence[Tensor]]:
        """`images`, and, in the same graph, maps (n, c, h, w) inside the generator that terms need; usually none."""
        return self.images(), ()

    @abstractmethod
    def update(self, loss: Tensor) -> None:
        """One gradient step on ``loss``, a function of the latest images."""

    def end(self) -> None:
        """Finish the batch."""

    def imagine(self, labels: Tensor) -> Tensor | None:
        """Images of ``labels`` from a generator that outlives batches, in evaluation mode; ``None`` without one."""
        return None

    def state_dict(self) -> State:
        """What persists from batch to batch."""
        return {"batches": self.batches}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.batches = state["batches"]


def descend(optimiser: torch.optim.Optimizer | None, loss: Tensor) -> None:
    """One step of ``optimiser`` on ``loss``."""
    assert optimiser is not None
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


class Pixels(Source):
    """The images themselves, optimised in the teacher's normalised space (DeepInversion, ZSKD, SoftTarget).

    Args:
        problem: shapes, and the normalisation, in whose units learning rate and initial noise are.
        lr: Adam's learning rate.
        betas: Adam's.
        restart: start every batch from noise; ``False`` continues from the last one, as released for ZSKD.
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
        """Noise with the data's mean and standard deviation, clipped to [0, 1]."""
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
        """An Adam step, then clipped to [0, 1]."""
        descend(self._optimiser, loss)
        self._cut()

    @torch.no_grad()
    def _cut(self) -> None:
        assert self._leaf is not None
        self._leaf.copy_(torch.clamp(self._leaf, -self._mean / self._std, (1 - self._mean) / self._std))

    def state_dict(self) -> State:
        """Only the count, unless batches continue one another."""
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
    """A generator and the latents of one batch, optimised together; the generator is re-initialised for every batch.

    Used by CMI and RGAL; weights from N(0, 0.02), as in DCGAN.

    Args:
        generator: latents (n, z) -> images (n, C, H, W); always in training mode.
        lr: Adam's learning rate for the generator.
        latent_lr: Adam's learning rate for the latents; the generator's if not given.
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
        """The generator's parameters for an optimiser, in groups with their learning rates."""
        return [{"params": list(generator.parameters()), "lr": self.lr}]

    def prepared(self) -> nn.Module:
        """The generator with which the new batch is optimised."""
        reset_parameters_dcgan(self.generator)
        return self.generator

    def images(self) -> Tensor:
        """(n, C, H, W)."""
        return self.generator(self._latents)

    def update(self, loss: Tensor) -> None:
        """An Adam step of generator and latents."""
        descend(self._optimiser, loss)
