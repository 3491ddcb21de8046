"""The encoder that trains the memory generator of PRE-DFKD and LRA as a variational autoencoder."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.images import Image, deviations, per_channel, require_side
from lra.networks.generators import halvings, reset_parameters_uniform

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
    """Three convolutions, halvings and two linear heads (PRE-DFKD, Binici et al., AAAI 2022; LRA).

    Takes images in [0,1] space and normalises them itself, as the papers' images are normalised ones. Images beyond 64
    pixels a side go through further strided convolutions, so that the heads stay as small as they are at 64.
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
            mean: of the data, one a channel.
            std: as ``mean``.
            width: channels of the last two convolutions; the first has half as many.
            bn_eps: of the first two BatchNorms; 0.8 as published, perhaps meant to be a momentum.
            normalise: the axis along which the normalised image is made a unit vector first. ``"height"`` as
                published, though ``"channel"`` was probably meant.

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
        """Encode images (n,C,H,W); the noise is drawn on the CPU, the same for every device."""
        x = (images - self.mean) / self.std
        if self.normalise != "none":
            x = F.normalize(x, dim=2 if self.normalise == "height" else 1)
        features = self.maps(x).flatten(1)
        mu, logvar = self.mu(features), self.logvar(features)
        noise = torch.randn(mu.shape, dtype=mu.dtype).to(mu.device)
        return Encoding(mu + noise * (0.5 * logvar).exp(), mu, logvar)


def _remaining(side: int) -> int:
    """Return what a side becomes: halved (down), halved by the strided convolution (up), halved (down)."""
    return -(-(side // 2) // 2) // 2
