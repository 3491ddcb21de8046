"""Generative memory: a generator trained to remember what another one made (PRE-DFKD).

Binici et al., "Robust and Resource-Efficient Data-Free Knowledge Distillation by Generative Pseudo Replay",
AAAI 2022. Memory generator M and encoder E form a variational autoencoder over new and replayed samples; no image is
stored. Before replay, latents are tuned against the teacher ("self-inference").
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.images import Image, deviations, per_channel, require_side
from lra.networks.generators import halvings, reset_parameters_uniform
from lra.options import MemoryGeneratorOptions
from lra.problem import Batch, Teacher
from lra.randomness import normal
from lra.state import Owner, State, turn
from lra.synthesis.terms import Balance, OneHot, total
from lra.view import View

Axis = Literal["height", "channel", "none"]


class Encoding(NamedTuple):
    """A latent drawn from the posterior, and the posterior itself: each (n, latent)."""

    z: Tensor
    mu: Tensor
    logvar: Tensor

    def divergence(self) -> Tensor:
        """Return KL(posterior || N(0,1)), summed over the latent and averaged over the batch."""
        return -0.5 * (1 + self.logvar - self.mu**2 - self.logvar.exp()).sum(1).mean()


class Encoder(nn.Module):
    """Three convolutions with downsampling, and two linear heads (PRE-DFKD, Binici et al., AAAI 2022; LRA).

    It takes images in [0, 1] and normalises them itself, because the papers' images are normalised. Images of more than
    64 pixels a side pass through further strided convolutions, so that the heads are no larger than at 64 pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        latent: int,
        image: Image,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        width: int = 128,
        bn_eps: float = 0.8,
        normalise: Axis = "height",
    ) -> None:
        """Build it with weights from U(-0.08, 0.08) and zero biases.

        Args:
            latent: size of the latent vector.
            image: channels, height and width; sides of 8 pixels or more.
            mean: of the data, one per channel.
            std: as ``mean``.
            width: channels of the last two convolutions; the first has half as many.
            bn_eps: of the first two BatchNorms; 0.8 as published, perhaps meant to be a momentum.
            normalise: the axis along which the normalised image is first scaled to unit vectors. ``"height"`` as
                published, although ``"channel"`` was probably meant.

        Raises:
            ValueError: if the image is too small, ``normalise`` unknown, or mean and std do not fit.
        """
        super().__init__()
        require_side(image, 8, "the encoder")
        if normalise not in ("height", "channel", "none"):
            raise ValueError(f"unknown axis {normalise!r} to normalise; valid: height, channel, none")
        channels, height, columns = image
        half = max(1, width // 2)
        self.normalise = normalise
        self.register_buffer("mean", per_channel(mean, channels, "mean"))
        self.register_buffer("std", deviations(std, channels))
        self.maps = nn.Sequential(
            *(nn.Conv2d(channels, half, 3, padding=1), nn.BatchNorm2d(half, bn_eps), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(half, width, 3, padding=1), nn.BatchNorm2d(width, bn_eps), nn.LeakyReLU(0.2)),
            nn.Upsample(scale_factor=0.5),
            *(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width)),
            nn.Upsample(scale_factor=0.5),
        )
        sides = [_remaining(height), _remaining(columns)]
        # Three halvings lie behind already: one more than a generator of two doublings has to make up for.
        for index in range(max(0, halvings(image) - 3)):
            stage = (nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width))
            self.maps.add_module(f"further{index}", nn.Sequential(*stage))
            sides = [-(-side // 2) for side in sides]
        features = width * sides[0] * sides[1]
        self.mu = nn.Linear(features, latent)
        self.logvar = nn.Linear(features, latent)
        reset_parameters_uniform(self)

    def forward(self, images: Tensor) -> Encoding:
        """Encode images (n,C,H,W)."""
        x = (images - self.mean) / self.std
        if self.normalise != "none":
            x = F.normalize(x, dim=2 if self.normalise == "height" else 1)
        features = self.maps(x).flatten(1)
        mu, logvar = self.mu(features), self.logvar(features)
        noise = normal(*mu.shape, dtype=mu.dtype, device=mu.device)
        return Encoding(mu + noise * (0.5 * logvar).exp(), mu, logvar)


def _remaining(side: int) -> int:
    """Return what a side becomes: halved (down), halved by the strided convolution (up), halved (down)."""
    return -(-(side // 2) // 2) // 2


class MemoryGenerator(Owner):
    """The generative memory: `sample` replays, and `update` learns new samples without forgetting old ones.

    Args:
        generator: M, latents (n, z) -> images (n, C, H, W).
        encoder: E, its inverse.
        teacher: the oracle, which labels remembered images.
        latent: z.
        options: rates and weights.
    """

    def __init__(
        self,
        generator: nn.Module,
        encoder: Encoder,
        teacher: Teacher,
        latent: int,
        options: MemoryGeneratorOptions,
    ):
        self.generator = generator
        self.encoder = encoder
        self.teacher = teacher
        self.latent = latent
        self.options = options
        self.terms = [OneHot(options.one_hot), Balance(options.balance)]
        self._optimisers = [torch.optim.Adam(m.parameters(), lr=options.lr, fused=True) for m in (generator, encoder)]
        self.updates = 0

    def sample(self, n: int) -> Batch:
        """``n`` remembered images with the teacher's logits; M uses its running statistics."""
        turn(self.generator, training=False)
        images = self._infer(n)
        return Batch(images, self.teacher.label(images))

    def update(self, new: Batch, replayed: int) -> Tensor:
        """One step on ``new`` samples together with ``replayed`` images of M's own.

        In the very first updates there is nothing to replay yet: pass 0.

        Returns:
            The loss: L1 between images, L1 between the teacher's logits of them, and the weighted KL.
        """
        turn(self.generator, training=True)
        turn(self.encoder, training=True)
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        target = new
        if replayed:
            remembered = self._infer(replayed)
            target = Batch(
                torch.cat([new.images, remembered]),
                torch.cat([new.logits, self.teacher.label(remembered)]),
            )
        loss = self._reconstruction_loss(target)
        loss.backward()
        for optimiser in self._optimisers:
            optimiser.step()
        self.updates += 1
        return loss.detach()

    def _reconstruction_loss(self, target: Batch) -> Tensor:
        encoding = self.encoder(target.images)
        images = self.generator(encoding.z)
        return (
            F.l1_loss(images, target.images)
            + F.l1_loss(self.teacher(images), target.logits)
            + self.options.kl * encoding.divergence()
        )

    def _infer(self, n: int) -> Tensor:
        """Images of latents tuned against the teacher: confident, balanced, and still near the prior."""
        device = next(self.generator.parameters()).device
        latents = normal(n, self.latent, device=device).requires_grad_(True)
        optimiser = torch.optim.Adam([latents], lr=self.options.latent_lr)
        for _ in range(self.options.latent_steps):
            loss = self._latent_loss(latents)
            if self.options.leak_latent_grad:
                optimiser.zero_grad()
                loss.backward()
            else:
                (latents.grad,) = torch.autograd.grad(loss, [latents])
            optimiser.step()
        with torch.no_grad():
            return self.generator(latents)

    def _latent_loss(self, latents: Tensor) -> Tensor:
        loss, _ = total(self.terms, View(self.generator(latents), self.teacher))
        # The published "log_var" is a plain variance, compared with 1; a single latent has none.
        spread = ((latents.var(dim=0) - 1) ** 2).mean() if len(latents) > 1 else latents.new_zeros(())
        return loss + spread + (latents.mean(dim=0) ** 2).mean()

    def networks(self) -> dict[str, nn.Module]:
        """M and E."""
        return {"memory's generator": self.generator, "memory's encoder": self.encoder}

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The optimisers of M and of E."""
        return list(self._optimisers)

    def state_dict(self) -> State:
        """Both networks with buffers, both optimisers, the number of updates."""
        return {
            "generator": self.generator.state_dict(),
            "encoder": self.encoder.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "updates": self.updates,
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.generator.load_state_dict(state["generator"])
        self.encoder.load_state_dict(state["encoder"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.updates = state["updates"]
