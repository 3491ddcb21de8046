"""What a data set is: labelled images, split by split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.benchmarks.errors import MissingInput
from lra.images import unit
from lra.synthesis.pool import to_bytes

Split = Literal["train", "test"]

Image = tuple[int, int, int]
"""Channels, height and width."""


class Labelled(NamedTuple):
    """Images (n, C, H, W), bytes or floats in [0, 1], and classes (n,) int64."""

    images: Tensor
    classes: Tensor

    def batches(self, size: int) -> Iterator["Labelled"]:
        """In order, ``size`` at a time, as floats in [0, 1]."""
        for images, classes in zip(self.images.split(size), self.classes.split(size), strict=True):
            yield Labelled(unit(images), classes)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class DataSet:
    """A data set that can be loaded split by split.

    Attributes:
        name: as typed after ``--dataset``.
        image: (channels, height, width).
        classes: K.
        load: gives a split; raises `MissingInput` where files are missing.
        summary: one line for listings.
        published: the normalisation that the literature uses for it, if it has one.
        present: whether its files are here.
        content: what tells a split from others of the same name; empty where the name says all.
    """

    name: str
    image: Image
    classes: int
    load: Callable[[Split], Labelled]
    summary: str = ""
    published: Normalisation | None = None
    present: Callable[[], bool] = lambda: True
    content: Callable[[Split], str] = lambda split: ""


def normalisation(data: DataSet, real: Labelled) -> Normalisation:
    """The published normalisation of ``data``, or that of its images ``real``."""
    if data.published is not None:
        return data.published
    if real.images.is_floating_point():
        mean, std = real.images.mean(dim=(0, 2, 3)), real.images.std(dim=(0, 2, 3))
    else:
        # From counts of the 256 levels: exact, and without a copy of the images as floats.
        levels = torch.linspace(0, 1, 256, dtype=torch.float64)
        counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in real.images.unbind(1)]).double()
        shares = counts / counts.sum(dim=1, keepdim=True)
        mean = shares @ levels
        std = (shares * (levels - mean[:, None]) ** 2).sum(dim=1).sqrt()
    return Normalisation(tuple(mean.tolist()), tuple(std.clamp_min(1e-3).tolist()))


def squared(images: Tensor, side: int | None) -> Tensor:
    """Bytes (n, C, H, W) cropped to their central square and resized to ``side``; as they are without one."""
    height, width = images.shape[2:]
    if side is None or (height, width) == (side, side):
        return images
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    centre = images[:, :, top : top + edge, left : left + edge]
    parts = (
        to_bytes(F.interpolate(unit(part), size=(side, side), mode="bilinear", antialias=True))
        for part in centre.split(1024)
    )
    return torch.cat(list(parts))


def no_training(name: str, remedy: str) -> MissingInput:
    """What to raise where a teacher is to be trained on data that are for testing only."""
    return MissingInput(f"data set {name} has no training images, and the test images are not for training: {remedy}")
