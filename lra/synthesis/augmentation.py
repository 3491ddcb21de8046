"""Random changes of images that keep their class: differentiable, one draw per image, for any float or byte tensor.

`lra.randomness` says where random numbers are drawn. Images are in [0, 1], so that the border that a shift brings in is
black, as when a stored image is padded and cropped.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.randomness import integers, permutation, sent, source, uniform

Augmentation = Callable[[Tensor], Tensor]
"""Images (n, C, H, W) -> as many images of the same size."""


def shifted(images: Tensor, reach: int) -> Tensor:
    """Each image padded with black and cropped at random to its size: shifted by up to ``reach`` pixels."""
    if not reach:
        return images
    n, _, height, width = images.shape
    corner = integers(2 * reach + 1, 2, n, 1, device=images.device)
    rows = (corner[0] + torch.arange(height, device=images.device))[:, :, None]
    columns = (corner[1] + torch.arange(width, device=images.device))[:, None, :]
    padded = F.pad(images, (reach, reach, reach, reach)).permute(0, 2, 3, 1)
    which = torch.arange(n, device=images.device)[:, None, None]
    return padded[which, rows, columns].permute(0, 3, 1, 2).contiguous()


def flipped(images: Tensor) -> Tensor:
    """Each image mirrored left to right with probability one half."""
    chosen = uniform(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def zoomed(images: Tensor, smallest: float = 0.25) -> Tensor:
    """A random crop of each image, enlarged to its size: from ``smallest`` to all of the area, sides 3:4 to 4:3.

    The "random resized crop" of CMI's local views, bilinear.
    """
    n, where = len(images), source(images.device)
    area = smallest + (1 - smallest) * torch.rand(n, device=where)
    ratio = torch.exp((torch.rand(n, device=where) * 2 - 1) * torch.log(torch.tensor(4 / 3)))
    sides = torch.stack([area * ratio, area / ratio], dim=1).sqrt().clamp_max(1)
    offset = (torch.rand(n, 2, device=where) * 2 - 1) * (1 - sides)
    theta = torch.zeros(n, 2, 3, device=where)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = sides[:, 0], sides[:, 1], offset
    grid = F.affine_grid(sent(theta, images.device).to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def wobbled(images: Tensor, strength: float = 1.0) -> Tensor:
    """Each image rotated, sheared, scaled and shifted a little, bilinear; the border is repeated where needed.

    Uniformly, at ``strength`` 1 by up to 10 degrees, 5 degrees, a tenth of its size, and a 16th of its side each way.
    """
    numbers = torch.rand(5, len(images), device=source(images.device))
    turn, shear, scale, right, down = (strength * (numbers * 2 - 1)).unbind()
    angle, slant = math.radians(10) * turn, torch.tan(math.radians(5) * shear)
    cosine, sine = (1 + 0.1 * scale) * angle.cos(), (1 + 0.1 * scale) * angle.sin()
    # The grid's side is 2 long.
    rows = [torch.stack([cosine, slant - sine, right / 8], dim=1), torch.stack([sine, cosine, down / 8], dim=1)]
    theta = sent(torch.stack(rows, dim=1), images.device).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def rolled(images: Tensor, reach: int) -> Tensor:
    """All images shifted by the same random offset of up to ``reach`` pixels, wrapping around."""
    offsets = torch.randint(-reach, reach + 1, (2,)).tolist()
    return images.roll(offsets, dims=(2, 3))


def shifted_together(images: Tensor, reach: int) -> Tensor:
    """All images shifted by the same random offset of up to ``reach`` pixels, filled with black."""
    if not reach:
        return images
    down, right = torch.randint(2 * reach + 1, (2,)).tolist()
    height, width = images.shape[2:]
    return F.pad(images, (reach, reach, reach, reach))[:, :, down : down + height, right : right + width]


def flipped_together(images: Tensor) -> Tensor:
    """All images mirrored left to right, or none."""
    return images.flip(3) if torch.rand(()) < 0.5 else images


def fmixed(images: Tensor, alpha: float = 1.0, decay: float = 3.0) -> Tensor:
    """Each image mixed with another one of the batch by a common mask of blobs: FMix (Harris et al., 2020).

    The mask is where smooth noise, with Fourier amplitudes that fall like frequency^-``decay``, is highest; its share
    of the pixels is drawn from Beta(``alpha``, ``alpha``). The teacher labels the mixtures.
    """
    height, width = images.shape[2:]
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    frequency = (rows**2 + columns**2).sqrt().clamp_min(1 / max(height, width))
    amplitudes = torch.randn(*frequency.shape, dtype=torch.complex64) / frequency**decay
    noise = torch.fft.irfft2(amplitudes, s=(height, width))
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    ranks = noise.flatten().argsort().argsort().view(height, width)
    kept = sent(ranks >= round(share * height * width), images.device)
    return torch.where(kept, images, images[permutation(len(images), images.device)])


def jittered(images: Tensor, strength: float = 0.1, probability: float = 0.4) -> Tensor:
    """Colour jitter of some images (n, C, H, W): brightness, contrast and, with three channels, saturation and hue.

    Each image is chosen with ``probability``. It is multiplied by a factor, then its difference from its mean grey and
    from its grey version by others, each from 1 - ``strength`` to 1 + ``strength``; then its colours are rotated by up
    to ``strength`` of a circle in YIQ. It is clipped to [0, 1].
    """
    numbers = torch.rand(5, len(images), 1, 1, 1, device=source(images.device)).to(images.dtype)
    numbers = sent(numbers, images.device)
    bright, contrast, saturation = (1 + strength * (2 * each - 1) for each in numbers[:3])
    angle = 2 * math.pi * strength * (2 * numbers[3] - 1)
    shaken = images * bright
    shaken = _grey(shaken).mean(dim=(2, 3), keepdim=True).lerp(shaken, contrast)
    if images.shape[1] == 3:
        shaken = _turned(_grey(shaken).lerp(shaken, saturation), angle)
    return torch.where(numbers[4] < probability, shaken.clamp(0, 1), images)


def relit(images: Tensor, brightness: float = 0.25, contrast: float = 0.8) -> Tensor:
    """Each image (n, C, H, W) multiplied by a factor, then its difference from its mean grey by another.

    It is clipped to [0, 1] each time. Factors are uniform from 1 - ``brightness``, or ``contrast``, to 1 + it: the
    colour jitter of class increments on CIFAR (Smith et al., ICCV 2021), which does the two in random order.
    """
    numbers = sent(torch.rand(2, len(images), 1, 1, 1, device=source(images.device)).to(images.dtype), images.device)
    bright, contrasted = 1 + brightness * (2 * numbers[0] - 1), 1 + contrast * (2 * numbers[1] - 1)
    shown = (images * bright).clamp(0, 1)
    return _grey(shown).mean(dim=(2, 3), keepdim=True).lerp(shown, contrasted).clamp(0, 1)


YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""Rows: grey and the two colour coordinates, from red, green and blue."""


def _grey(images: Tensor) -> Tensor:
    """(n, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    return (images * images.new_tensor(YIQ[0]).view(3, 1, 1)).sum(dim=1, keepdim=True)


def _turned(images: Tensor, angle: Tensor) -> Tensor:
    """Colours rotated by angles (n, 1, 1, 1) about grey."""
    matrix = images.new_tensor(YIQ)
    y, i, q = torch.einsum("dc,nchw->ndhw", matrix, images).split(1, dim=1)
    cosine, sine = angle.cos(), angle.sin()
    turned = torch.cat([y, cosine * i - sine * q, sine * i + cosine * q], dim=1)
    return torch.einsum("cd,ndhw->nchw", torch.linalg.inv(matrix), turned)


class Pasted(NamedTuple):
    """A batch in which each image contains a part of another."""

    images: Tensor
    """(n, C, H, W)."""
    partner: Tensor
    """(n,): the index of the other image."""
    share: Tensor
    """(n,): the part's share λ of the pixels, in [0, 1]."""


def cutmix(images: Tensor) -> Pasted:
    """Each image with a rectangle of another one of the batch, at the same position (Yun et al., ICCV 2019).

    Drawn for each image independently: sides ⌊s·√u⌋ with u ~ U(0, 1), about a uniform centre, cut off at the border.
    The share is that of the pixels actually pasted, which may be less than u.
    """
    n, device = len(images), images.device
    partner = permutation(n, device)
    numbers = uniform(3, n, 1, 1, device=device)
    inside = torch.ones(n, *images.shape[2:], dtype=torch.bool, device=device)
    for axis, number in ((2, numbers[1]), (1, numbers[2])):
        side = images.shape[axis + 1]
        cut, centre = (side * numbers[0].sqrt()).floor(), (side * number).floor()
        first = centre - (cut / 2).floor()
        place = torch.arange(side, device=device).view(1, -1, 1) if axis == 1 else torch.arange(side, device=device)
        inside &= (place >= first) & (place < first + cut)
    mixed = torch.where(inside[:, None], images[partner], images)
    return Pasted(mixed, partner, inside.flatten(1).to(images.dtype).mean(dim=1))


Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images (n, C, H, W) and labels -> mixed ones, with labels (n,) or (n, K)."""


def mixing(probability: float, classes: int) -> Mixing:
    """Apply `cutmix` to a batch with ``probability``: labels (n,) or (n, K) become mixtures (n, K), λ the partner's."""

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not probability or torch.rand(()) >= probability:
            return images, labels
        pasted = cutmix(images)
        soft = F.one_hot(labels, classes).to(images.dtype) if labels.dim() == 1 else labels
        return pasted.images, soft.lerp(soft[pasted.partner], pasted.share[:, None].to(soft.dtype))

    return mix


def views(images: Tensor, augment: Augmentation, count: int) -> Tensor:
    """``count`` independent augmentations of every image, one set after another: (count·n, C, H, W)."""
    return torch.cat([augment(images) for _ in range(count)])
