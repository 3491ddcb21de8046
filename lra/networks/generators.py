"""Image generators: from latents (n, latent) to images (n,C,H,W) in [0,1] space.

All published generators of the field share one skeleton, `UpsamplingGenerator`; the functions below it are the
published settings. `sized_for` adapts sizes to the data, `deepened` depths.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from lra.images import Image, deviations, per_channel, require_side

Head = Literal["sigmoid", "standardised", "affine"]

LARGEST = 64
"""Longest image side for which the two upsamplings of the published generators suffice; larger images take more."""
FOLDED_PIXELS, FOLDED_PRODUCTS, FOLDED_DRAWN = 2**10, 2**19, 2**21
"""Of a batch of maps, the pixels n·h·w and the products of a tap n·h·w·c·c' from which upsampling and convolution are
cheaper as one transposed convolution, by ``python -m lra.benchmarks.cost.convolutions``: with fewer of the first,
summing the kernel's taps costs what it saves; with fewer of the second, starting operations does. Most is saved in the
gradient: without one there must be more products than the third."""
SMALLEST_MAP = 8
"""Largest side of the first map of a generator for larger images, and of the last map of an encoder for them."""


def halvings(image: Image) -> int:
    """The number of halvings between an image and the map that a linear layer makes or takes, at least 2.

    Up to 64 pixels a side it is 2, as published for 32 and 64; above, as many as make the map's longer side at most 8:
    4 up to 128 pixels, 5 up to 256, as the DFKD benchmark uses for 224. Thus the linear layer, which would otherwise
    grow with the area, stays as small as at 64 pixels.
    """
    longest = max(image[1:])
    return 2 if longest <= LARGEST else (-(-longest // SMALLEST_MAP) - 1).bit_length()


def deepened(channels: Sequence[int], image: Image) -> tuple[int, ...]:
    """The ``channels`` of a generator with two upsamplings, the first repeated for as many more as ``image`` needs.

    Args:
        channels: of `UpsamplingGenerator`.
        image: channels, height and width.
    """
    more = halvings(image) - (len(channels) - 1)
    return (channels[0],) * max(0, more) + tuple(channels)


class Rescale(nn.Module):
    """Map standardised images back to [0,1] space: mean + std * x, not clamped."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Keep one mean and one std per channel; raise ``ValueError`` if they are missing or do not fit."""
        super().__init__()
        if mean is None or std is None:
            raise ValueError("a standardised generator needs mean and std to return images in [0,1] space")
        self.register_buffer("mean", per_channel(mean, channels, "mean"))
        self.register_buffer("std", deviations(std, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n,C,H,W) to (n,C,H,W)."""
        return self.mean + self.std * x


class DoublingConvolution(nn.Conv2d):
    """Nearest upsampling by 2, then a 3x3 convolution with zero padding: maps (n,c,h,w) to (n,c',2h,2w).

    Where it `folds`, it is computed as an equivalent transposed convolution, whose 4x4 kernel is `spread` from the 3x3
    one: 2.25 times fewer multiplications, and no enlarged map. The result is equal except for rounding; parameters, and
    what is done to them, are those of the plain convolution.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        """Build it like ``nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)``, with the same initial weights."""
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (n,c,h,w) to (n,c',2h,2w)."""
        if not folds(input, self.out_channels):
            return super().forward(F.interpolate(input, scale_factor=2))
        return F.conv_transpose2d(input, spread(self.weight), self.bias, stride=2, padding=1)


def folds(maps: Tensor, channels: int) -> bool:
    """Whether `DoublingConvolution` of ``maps`` (n,c,h,w) to ``channels`` channels is cheaper as one convolution."""
    pixels = maps.shape[0] * maps.shape[2] * maps.shape[3]
    products = pixels * maps.shape[1] * channels
    return pixels >= FOLDED_PIXELS and (products >= FOLDED_PRODUCTS if maps.requires_grad else products > FOLDED_DRAWN)


def spread(weight: Tensor) -> Tensor:
    """The kernel (c,c',4,4) of the transposed convolution equivalent to upsampling and a 3x3 ``weight`` (c',c,3,3).

    Each tap is the sum of those taps of the flipped 3x3 kernel that fall on one pixel of the map before upsampling.
    """
    kernel = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
    kernel = kernel[:, :, 1:] + kernel[:, :, :-1]
    return (kernel[..., 1:] + kernel[..., :-1]).transpose(0, 1)


class UpsamplingGenerator(nn.Module):
    """Linear layer to a small map, blocks of (nearest x2, 3x3 convolution, BatchNorm, LeakyReLU), and a head.

    Sides that upsampling cannot reach exactly are made a little larger and cropped at the centre before the last
    convolution.
    """

    def __init__(
        self,
        latent: int,
        image: Image,
        *,
        channels: Sequence[int] = (128, 128, 64),
        head: Head = "sigmoid",
        bias: bool = False,
        bn_eps: float = 1e-5,
        activated: bool = False,
        spectral_norm: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        reset: Callable[[nn.Module], object] | None = None,
    ) -> None:
        """Build it.

        Args:
            latent: size of the latent vector.
            image: channels, height and width of the images to return.
            channels: of the first map, then of each block; every block doubles the sides.
            head: after the last convolution, ``"sigmoid"``; or ``"standardised"``, tanh and BatchNorm without
                parameters; or ``"affine"``, BatchNorm with parameters. The last two end in mean + std * x.
            bias: whether the convolutions of the blocks have a bias (the last convolution always has one).
            bn_eps: of the BatchNorm in the blocks.
            activated: whether the first map passes through a LeakyReLU, too.
            spectral_norm: whether every convolution is spectrally normalised, with one power iteration per pass.
            mean: of the data, one per channel; for the last two heads.
            std: as ``mean``.
            reset: called with the generator before spectral norm is attached, to initialise it.

        Raises:
            ValueError: if a size is not positive, or mean and std are missing or do not fit.
        """
        super().__init__()
        require_side(image, 1, "a generator")
        if min(latent, *channels) < 1:
            raise ValueError(f"latent and channels must be positive; got {latent} and {tuple(channels)}")
        self.latent, self.image = latent, image
        self.first_map = first_map(channels, image)
        self.linear = nn.Linear(latent, self.first_map[0] * self.first_map[1] * self.first_map[2])
        self.norm = nn.BatchNorm2d(channels[0])
        self.activation = nn.LeakyReLU(0.2) if activated else nn.Identity()
        pairs = pairwise(channels)
        self.blocks = nn.Sequential(*(doubling_block(inputs, outputs, bias, bn_eps) for inputs, outputs in pairs))
        self.last = nn.Conv2d(channels[-1], image[0], 3, padding=1)
        self.head = _head(head, image[0], mean, std)
        if reset is not None:
            reset(self)
        if spectral_norm:
            for module in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
                parametrizations.spectral_norm(module)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, latent) to images (n,C,H,W)."""
        first = self.linear(latents).unflatten(1, self.first_map)
        # Convolutions are faster so. Images leave as they would otherwise: whoever gets them may view them.
        maps = self.blocks(self.activation(self.norm(first.contiguous(memory_format=torch.channels_last))))
        return self.head(self.last(cropped(maps, self.image)).contiguous())


def first_map(channels: Sequence[int], image: Image) -> Image:
    """Channels and sides of the first map, so that doublings to all further ``channels`` reach at least the image."""
    scale = 2 ** (len(channels) - 1)
    return channels[0], -(-image[1] // scale), -(-image[2] // scale)


def cropped(maps: Tensor, image: Image) -> Tensor:
    """The centre of ``maps`` (n,c,h,w), as large as ``image``: (n,c,H,W)."""
    _, height, width = image
    top, left = (maps.shape[2] - height) // 2, (maps.shape[3] - width) // 2
    return maps[:, :, top : top + height, left : left + width]


def doubling_block(inputs: int, outputs: int, bias: bool = False, bn_eps: float = 1e-5) -> nn.Sequential:
    """Nearest upsampling by 2, 3x3 convolution, BatchNorm, LeakyReLU of slope 0.2."""
    return nn.Sequential(
        nn.Identity(),  # Where files, which name parts by number, have the upsampling.
        DoublingConvolution(inputs, outputs, bias),
        nn.BatchNorm2d(outputs, eps=bn_eps),
        nn.LeakyReLU(0.2),
    )


def _head(head: Head, channels: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> nn.Module:
    if head == "sigmoid":
        return nn.Sigmoid()
    if head == "standardised":
        return nn.Sequential(nn.Tanh(), nn.BatchNorm2d(channels, affine=False), Rescale(channels, mean, std))
    if head == "affine":
        return nn.Sequential(nn.BatchNorm2d(channels), Rescale(channels, mean, std))
    raise ValueError(f"unknown head {head!r}; valid: sigmoid, standardised, affine")


class StandardisedGenerator(UpsamplingGenerator):
    """The generator of PRE-DFKD (Binici et al., AAAI 2022) and LRA (Patel et al., CVPR 2023).

    In train mode each channel of a batch has exactly the mean and (biased) variance of the data, so that images lie
    around [0,1] but are not confined to it. ``bn_eps`` is 0.8 as published, where a momentum may have been meant. The
    *memory generator* of both papers is the same without ``spectral_norm``.
    """

    def __init__(
        self,
        latent: int,
        image: Image,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        width: int = 128,
        spectral_norm: bool = True,
        bn_eps: float = 0.8,
    ) -> None:
        """Build it with weights from U(-0.08, 0.08) and zero biases; arguments as for `UpsamplingGenerator`."""
        super().__init__(
            latent,
            image,
            channels=deepened((width, width, max(1, width // 2)), image),
            head="standardised",
            bias=True,
            bn_eps=bn_eps,
            spectral_norm=spectral_norm,
            mean=mean,
            std=std,
            reset=reset_parameters_uniform,
        )


def sized_for(image: Image) -> tuple[int, int]:
    """Return ``(width, latent)`` of a generator that suits images of this size.

    The width is the largest power of two up to C*H*W / 24, between 16 and 128; the latent is eight times that, at most
    1000. Thus CIFAR (3x32x32) gets 128 and 1000, as PRE-DFKD and LRA use, 1x32x32 gets 32 and 256, and 8x8 digits get
    16 and 128: a generator much larger than its data learns no better and costs more. Images beyond 64 pixels a side
    get no wider generator but a deeper one, see `deepened`.
    """
    pixels = image[0] * image[1] * image[2]
    width = 2 ** max(4, min(7, (pixels // 24).bit_length() - 1))
    return width, min(1000, 8 * width)


def memory_generator(
    latent: int,
    image: Image,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    width: int = 128,
    bn_eps: float = 0.8,
) -> StandardisedGenerator:
    """Build the memory generator of PRE-DFKD and LRA: `StandardisedGenerator` without spectral norm."""
    return StandardisedGenerator(latent, image, mean=mean, std=std, width=width, bn_eps=bn_eps, spectral_norm=False)


def gen_s(latent: int, image: Image, *, width: int = 128) -> UpsamplingGenerator:
    """Build the small generator of CMI, Fast and AEAHL-RG (2.33 M parameters at latent 256, 3x32x32)."""
    return UpsamplingGenerator(latent, image, channels=deepened((width, width, max(1, width // 2)), image))


def gen_l(latent: int, image: Image, *, width: int = 128) -> UpsamplingGenerator:
    """Build the large generator of CMI (4.58 M parameters at latent 256, 3x32x32)."""
    return UpsamplingGenerator(latent, image, channels=deepened((2 * width, width, max(1, width // 2)), image))


def gen_zskt(
    latent: int, image: Image, *, mean: Sequence[float], std: Sequence[float], width: int = 128
) -> UpsamplingGenerator:
    """Build the generator of ZSKT (Micaelli and Storkey, NeurIPS 2019): with biases, and BatchNorm, not a sigmoid."""
    channels = deepened((width, width, max(1, width // 2)), image)
    return UpsamplingGenerator(latent, image, channels=channels, head="affine", bias=True, mean=mean, std=std)


def gen_tadfkd(latent: int, image: Image, *, width: int = 128, bn_eps: float = 0.8) -> UpsamplingGenerator:
    """Build the generator of TA-DFKD (Shin et al., AAAI 2024): GenS with biases, and an activation of its first map.

    ``bn_eps`` is 0.8 as released, where a momentum may have been meant.
    """
    channels = deepened((width, width, max(1, width // 2)), image)
    return UpsamplingGenerator(latent, image, channels=channels, bias=True, bn_eps=bn_eps, activated=True)


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _weight(module: nn.Module) -> Tensor:
    """Return the trained tensor, which under a parametrisation is not ``module.weight``."""
    if parametrize.is_parametrized(module, "weight"):
        return module.parametrizations.weight.original  # type: ignore[union-attr, return-value]
    return module.weight  # type: ignore[return-value]


def reset_parameters_uniform(module: nn.Module, bound: float = 0.08) -> None:
    """Draw the weights of convolutions and linear layers from U(-bound, bound), zero biases, reset BatchNorm.

    Source: PRE-DFKD and LRA, for their generators and encoder.
    """
    for child in module.modules():
        if isinstance(child, (nn.Linear, *_CONVOLUTIONS)):
            nn.init.uniform_(_weight(child), -bound, bound)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.reset_parameters()


def reset_parameters_dcgan(module: nn.Module, std: float = 0.02) -> None:
    """Draw conv and linear weights from N(0, std), BatchNorm's from N(1, std); set biases to 0.

    Running statistics stay as they are. Source: DCGAN (Radford et al., 2016), as Fast and RGAL re-initialise
    their generator before each synthesis.
    """
    for child in module.modules():
        if isinstance(child, (nn.Linear, *_CONVOLUTIONS)):
            nn.init.normal_(_weight(child), 0.0, std)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.modules.batchnorm._BatchNorm) and child.affine:
            nn.init.normal_(child.weight, 1.0, std)
            nn.init.zeros_(child.bias)
