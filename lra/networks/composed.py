"""Composed generators: AEAHL-RG's pair, and DLIG's generator of two latents."""

from itertools import pairwise
from math import gcd

import torch
from torch import Tensor, nn

from lra.images import Image, require_side
from lra.networks.generators import UpsamplingGenerator, cropped, deepened, doubling_block


class FusedGenerator(nn.Module):
    """Two generators on the same latents, averaged, then a small convolutional decoder.

    For tasks in sequence one of the two can be kept from an earlier task ("reusable generators", AEAHL-RG). If they
    started from equal weights they would stay equal, so ``second`` is never a copy of ``first``.
    """

    def __init__(
        self, first: UpsamplingGenerator, second: UpsamplingGenerator, decoder: nn.Module | None = None
    ) -> None:
        """Fuse generators of the same latent and image size, with ``decoder`` or a new `decoder_of_fusion`.

        Raises:
            ValueError: if the generators' sizes differ, or both are the same object.
        """
        super().__init__()
        if first is second or (first.latent, first.image) != (second.latent, second.image):
            raise ValueError("a fusion needs two distinct generators with the same latent and image size")
        self.latent, self.image = first.latent, first.image
        self.first, self.second = first, second
        self.decoder = decoder_of_fusion(first.image[0]) if decoder is None else decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, latent) to images (n,C,H,W) in (0,1)."""
        return self.decoder((self.first(latents) + self.second(latents)) / 2)


def decoder_of_fusion(channels: int) -> nn.Sequential:
    """Build the decoder of AEAHL-RG, C-8-16-8-C channels and a sigmoid, for images of any size."""
    widths = (channels, 8, 16, 8)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, channels, 3, padding=1), nn.Sigmoid())


class TwoLatentGenerator(nn.Module):
    """Generator of DLIG: half of each latent is the content of an image, the other half its style.

    The content becomes a map as large as the image, as in GenS; every position of it attends to the tokens of the style
    by cross-attention; the result, the fused map, is decoded. The release ends in a Tanh, whose output is then treated
    as an image in [0,1]; here it ends in a sigmoid. The release's projection of queries, which is unused, is left out.
    """

    def __init__(
        self, latent: int, image: Image, *, width: int = 128, heads: int | None = None, tokens: int = 16
    ) -> None:
        """Build it.

        Args:
            latent: size of both halves together.
            image: channels, height and width.
            width: channels of the first map; maps as large as the image have half as many.
            heads: of the attention; by default 4, or as many as evenly divide a narrow generator's channels.
            tokens: of the style.

        Raises:
            ValueError: if a size is not positive, the latent size is odd, or the heads do not divide the channels.
        """
        super().__init__()
        require_side(image, 1, "a generator")
        if min(latent, width, tokens) < 1:
            raise ValueError(f"latent, width and tokens must be positive; got {latent}, {width} and {tokens}")
        if latent % 2:
            raise ValueError(f"a latent of {latent} does not split into content and style: give an even number")
        channels = deepened((width, width, max(1, width // 2)), image)
        fused = channels[-1]
        heads = gcd(4, fused) if heads is None else heads
        if fused % heads:
            raise ValueError(f"{heads} heads do not divide {fused} channels, half of the width {width}, evenly")
        self.latent, self.image = latent, image
        scale = 2 ** (len(channels) - 1)
        first = (channels[0], -(-image[1] // scale), -(-image[2] // scale))
        units = first[0] * first[1] * first[2]
        self.first = nn.Sequential(
            nn.Linear(latent // 2, units), nn.BatchNorm1d(units), nn.LeakyReLU(0.2), nn.Unflatten(1, first)
        )
        self.content = nn.Sequential(
            nn.BatchNorm2d(first[0]), *(doubling_block(inputs, outputs) for inputs, outputs in pairwise(channels))
        )
        self.style = nn.Sequential(
            nn.Linear(latent // 2, tokens * fused),
            nn.LayerNorm(tokens * fused),
            nn.LeakyReLU(0.2),
            nn.Unflatten(1, (tokens, fused)),
        )
        self.query = nn.LayerNorm(fused)
        self.attention = nn.MultiheadAttention(fused, heads, batch_first=True)
        self.mixing = nn.Sequential(
            nn.LayerNorm(fused), nn.Linear(fused, 4 * fused), nn.GELU(), nn.Linear(4 * fused, fused)
        )
        self.smoothing = nn.Sequential(nn.Conv2d(fused, fused, 3, padding=1), nn.BatchNorm2d(fused), nn.LeakyReLU(0.2))
        self.decoder = nn.Sequential(
            nn.BatchNorm2d(fused), nn.LeakyReLU(0.2), nn.Conv2d(fused, image[0], 3, padding=1), nn.Sigmoid()
        )

    def fused(self, latents: Tensor) -> Tensor:
        """Map latents (n, latent) to the map (n, width/2, H, W) that images are decoded from."""
        content, style = latents.chunk(2, dim=1)
        maps = self.content(self.first(content).contiguous(memory_format=torch.channels_last))
        places = cropped(maps, self.image).flatten(2).transpose(1, 2)
        tokens = self.style(style)
        places = places + self.attention(self.query(places), tokens, tokens, need_weights=False)[0]
        places = places + self.mixing(places)
        return self.smoothing(places.transpose(1, 2).unflatten(2, self.image[1:]))

    def decoded(self, fused: Tensor) -> Tensor:
        """Map fused maps (n, width/2, H, W) to images (n,C,H,W) in (0,1)."""
        return self.decoder(fused).contiguous()

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, latent) to images (n,C,H,W) in (0,1)."""
        return self.decoded(self.fused(latents))
