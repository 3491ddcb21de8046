"""Sources whose generator outlives a batch: it learns to be a good start, or is drawn anew now and then."""

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from lra.networks.composed import FusedGenerator, LabelGenerator
from lra.networks.generators import UpsamplingGenerator
from lra.randomness import normal
from lra.state import State
from lra.synthesis.sources.source import BETAS, LatentSource, Source, descend


class MetaSource(LatentSource):
    """A generator that lives on, from which each batch starts (Fast-Datafree; Fang et al., AAAI 2022).

    With ``meta="none"`` a batch optimises the generator itself. Otherwise it optimises a copy G', and the
    generator G then learns to be a good start: ``"fomaml"`` takes the sum of G''s gradients over the inner steps,
    ``"reptile"`` 67·(G - G'), each in one Adam step at ``lr`` times the inner steps.

    Args:
        generator: G.
        lr: inner learning rate of the generator.
        latent_lr: inner learning rate of the latents.
        steps: inner steps per batch.
        meta: how G learns.
        renew_first_at: begin this batch (counted from 1) with G's first layer drawn anew; 0 for never.
        renew_scale: that first layer's BatchNorm scales are drawn from N(this, 0.02): 1, or 0 as released.
    """

    def __init__(
        self,
        generator: UpsamplingGenerator | FusedGenerator,
        lr: float,
        latent_lr: float,
        steps: int,
        meta: Literal["fomaml", "reptile", "none"] = "fomaml",
        renew_first_at: int = 0,
        renew_scale: float = 1.0,
    ):
        super().__init__(generator, lr, latent_lr)
        self.meta = meta
        self.renew_first_at, self.renew_scale = renew_first_at, renew_scale
        outer = [group | {"lr": group["lr"] * steps} for group in self.groups(generator)]
        self.outer = torch.optim.Adam(outer, betas=BETAS)
        self.fast: nn.Module = generator
        """G' while a batch is made."""

    def prepared(self) -> nn.Module:
        """A copy of G, or G itself."""
        if self.batches == self.renew_first_at:
            assert isinstance(self.generator, UpsamplingGenerator)
            nn.init.normal_(self.generator.linear.weight, 0.0, 0.02)
            nn.init.zeros_(self.generator.linear.bias)
            nn.init.normal_(self.generator.norm.weight, self.renew_scale, 0.02)
            nn.init.zeros_(self.generator.norm.bias)
        self.outer.zero_grad()
        self.fast = self.generator if self.meta == "none" else copy.deepcopy(self.generator)
        return self.fast

    def images(self) -> Tensor:
        """(n, C, H, W), of G'."""
        return self.fast(self._latents)

    def update(self, loss: Tensor) -> None:
        """An inner step; its gradient is added to G's."""
        assert self._optimiser is not None
        self._optimiser.zero_grad()
        loss.backward()
        if self.meta == "fomaml":
            self._collect(lambda slow, fast: torch.zeros_like(slow) if fast.grad is None else fast.grad)
        self._optimiser.step()

    def end(self) -> None:
        """The outer step."""
        if self.meta == "reptile":
            self._collect(lambda slow, fast: 67 * (slow - fast).detach())
        if self.meta != "none":
            self.outer.step()
        self.fast = self.generator

    def generator_to_reuse(self) -> nn.Module | None:
        """G."""
        return self.generator

    @torch.no_grad()
    def imagine(self, labels: Tensor) -> Tensor:
        """Images of fresh latents, whatever the labels."""
        device = next(self.generator.parameters()).device
        return self.generator.eval()(normal(len(labels), self.generator.latent, device=device))

    def _collect(self, gradient: Callable[[Tensor, Tensor], Tensor]) -> None:
        for slow, fast in zip(self.generator.parameters(), self.fast.parameters(), strict=True):
            found = gradient(slow, fast).clone()
            slow.grad = found if slow.grad is None else slow.grad + found

    def state_dict(self) -> State:
        """G, the outer optimiser, the count."""
        return super().state_dict() | {"generator": self.generator.state_dict(), "outer": self.outer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.generator.load_state_dict(state["generator"])
        self.outer.load_state_dict(state["outer"])


class NoisyLayerSource(Source):
    """NAYER's generator: label embeddings through noisy layers that are drawn anew for every batch (CVPR 2024).

    Args:
        generator: labels (n,) -> images (n, C, H, W).
        lr: Adam's.
        life: batches until the whole generator is drawn anew.
    """

    def __init__(self, generator: LabelGenerator, lr: float, life: int):
        super().__init__()
        self.generator = generator
        self.lr, self.life = lr, life
        self._labels: Tensor | None = None
        self._optimiser: torch.optim.Optimizer | None = None

    def begin(self, labels: Tensor) -> None:
        """New noisy layers, a new optimiser, and now and then a new generator."""
        if self.batches and self.batches % self.life == 0:
            for module in self.generator.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d, nn.modules.batchnorm._BatchNorm)):
                    module.reset_parameters()
        self.batches += 1
        self.generator.train()
        self.generator.reset_noise()
        self._labels = labels
        self._optimiser = torch.optim.Adam(self.generator.parameters(), lr=self.lr, betas=BETAS)

    def images(self) -> Tensor:
        """(n, C, H, W)."""
        assert self._labels is not None
        return self.generator(self._labels)

    def update(self, loss: Tensor) -> None:
        """An Adam step of the generator, noisy layers included."""
        descend(self._optimiser, loss)

    def generator_to_reuse(self) -> nn.Module | None:
        """The generator, as it was at the end of the last batch."""
        return self.generator

    def networks(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    @torch.no_grad()
    def imagine(self, labels: Tensor) -> Tensor:
        """Images of ``labels``, by the noisy layers of the last batch."""
        return self.generator.eval()(labels)

    def state_dict(self) -> State:
        """The generator and the count."""
        return super().state_dict() | {"generator": self.generator.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.generator.load_state_dict(state["generator"])
