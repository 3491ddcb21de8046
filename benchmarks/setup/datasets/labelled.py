"""What a data set is: labelled images, split by split.

All that describes one is known without torch, which takes seconds to import: only loading its images needs it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lra.benchmarks.errors import MissingInput

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "test"]

Image = tuple[int, int, int]
"""Channels, height and width."""

SPLIT_NAMES: dict[str, Literal["train", "test", "val"]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
"""What folders and arrays of a split are called, in small letters."""


class Labelled(NamedTuple):
    """Images (n, C, H, W), bytes or floats in [0, 1], and classes (n,) int64."""

    images: "Tensor"
    classes: "Tensor"

    def batches(self, size: int) -> Iterator["Labelled"]:
        """In order, ``size`` at a time, as floats in [0, 1]."""
        from lra.images import unit

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
        names: of the K classes, or none.
        test_images: how many there are to test on, where that is known without loading them.
        notes: what a user should be told of how it was read, a line each.
        reached: how its images got their size.
        fit: which fit they got it by, if some had other proportions.
    """

    name: str
    image: Image
    classes: int
    load: Callable[[Split], Labelled]
    summary: str = ""
    published: Normalisation | None = None
    present: Callable[[], bool] = lambda: True
    content: Callable[[Split], str] = lambda split: ""
    names: tuple[str, ...] = ()
    test_images: int | None = None
    notes: tuple[str, ...] = ()
    reached: str = "as they are"
    fit: str = ""

    def require(self) -> None:
        """Raise `MissingInput`, which says how to get them, unless its files are here."""
        if not self.present():
            self.load("test")

    def record(self) -> dict[str, Any]:
        """For ``data.json``: what a report, or a reader of one, should know of it."""
        return {
            "name": self.name,
            "image": list(self.image),
            "classes": self.classes,
            "names": list(self.names),
            "test_images": self.test_images,
            "images": self.reached,
            "notes": list(self.notes),
        }


def normalisation(data: DataSet, real: Labelled) -> Normalisation:
    """The published normalisation of ``data``, or that of its images ``real``."""
    import torch

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


def no_training(name: str, remedy: str) -> MissingInput:
    """What to raise where a teacher is to be trained on data that are for testing only."""
    return MissingInput(f"data set {name} has no training images, and the test images are not for training: {remedy}")
