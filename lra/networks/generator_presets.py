"""Generators of the literature as settings of `UpsamplingGenerator`, and sizes that fit the data."""

from collections.abc import Sequence

from lra.networks.generators import StandardisedGenerator, UpsamplingGenerator, deepened
from lra.networks.shapes import Image


def sized_for(image: Image) -> tuple[int, int]:
    """Return ``(width, latent)`` of a generator that suits images of this size.

    The width is the power of two at or below C*H*W / 24, between 16 and 128; the latent eight times that, at
    most 1000. CIFAR (3x32x32) so gets 128 and 1000, as PRE-DFKD and LRA use, 1x32x32 gets 32 and 256, and
    8x8 digits get 16 and 128: a generator much larger than its data learns no better and costs the budget. Images
    beyond 64 pixels a side get no wider generator but a deeper one, see `deepened`.
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


def gen_d(latent: int, image: Image, *, depth: int, width: int = 128) -> UpsamplingGenerator:
    """Build a generator with ``depth`` doublings, from width * 2**(depth-1) channels down to width / 2.

    The DFKD benchmark takes depth 2 for side 32 (8.78 M parameters at latent 512), 3 for 64 and 5 for 224.

    Raises:
        ValueError: if ``depth`` is below 1.
    """
    if depth < 1:
        raise ValueError(f"a generator needs a depth of at least 1; got {depth}")
    channels = [max(1, width * 2**power // 2) for power in range(depth, -1, -1)]
    return UpsamplingGenerator(latent, image, channels=channels)


def gen_zskt(
    latent: int, image: Image, *, mean: Sequence[float], std: Sequence[float], width: int = 128
) -> UpsamplingGenerator:
    """Build the generator of ZSKT (Micaelli and Storkey, NeurIPS 2019): biases, BatchNorm for sigmoid."""
    channels = deepened((width, width, max(1, width // 2)), image)
    return UpsamplingGenerator(latent, image, channels=channels, head="affine", bias=True, mean=mean, std=std)
