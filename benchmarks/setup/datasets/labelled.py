"""The interface of a data set: labelled images, split by split, in the form (size, fit, channels) that a user requests.

Its description is available without torch, which takes seconds to import: only loading its images needs it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lra.benchmarks.errors import MissingInput, UsageError

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
"""Names of the folders and arrays of a split, in lower case."""


class Labelled(NamedTuple):
    """Images (n, C, H, W), bytes or floats in [0, 1], and classes (n,) int64."""

    images: "Tensor"
    classes: "Tensor"

    def batches(self, size: int) -> Iterator["Labelled"]:
        """Batches in order, ``size`` images at a time, as floats in [0, 1]."""
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
        load: loads a split; raises `MissingInput` if files are missing.
        summary: one line for listings.
        published: the normalisation that the literature uses for it, if it has one.
        present: whether its files are here.
        content: what distinguishes a split from others of the same name; empty where the name is enough.
        names: of the K classes, or none.
        test_images: number of test images, if known without loading them.
        notes: what a user should know of how it was read, a line each.
        reached: how its images got their size.
        fit: by which fit they got it, if some had other proportions.
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
        """Raise `MissingInput`, which says how to get its files, unless they are here."""
        if not self.present():
            self.load("test")

    def record(self) -> dict[str, Any]:
        """For ``data.json``: what a report, or its reader, should know of it."""
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
    """The error for training a teacher on data that are for testing only."""
    return MissingInput(f"data set {name} has no training images, and the test images are not for training: {remedy}")


Fit = Literal["squash", "crop", "pad"]
"""How images of other proportions reach a size: squashed or stretched into it, nothing lost, as torchvision's
``Resize((height, width))``; cut about the middle to its proportions, as ``Resize`` of the shorter side and
``CenterCrop``; or whole, with black beside them."""

DONE = {"squash": "squashed", "crop": "cropped about the middle", "pad": "padded with black"}


class Frame(NamedTuple):
    """The part of an image that is kept, its new size, and its position on a black ground.

    Attributes:
        box: top, left, height and width of the part that is kept.
        inner: height and width to which it is resized.
        corner: its top and left in the new image.
    """

    box: tuple[int, int, int, int]
    inner: tuple[int, int]
    corner: tuple[int, int]


@dataclass(frozen=True)
class Form:
    """The requested form of images; ``None`` leaves them as they are.

    Attributes:
        size: height and width.
        fit: how they are brought to the size.
        channels: 1 or 3: colours become grey by ITU-R 601, as in Pillow, and grey is repeated.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "squash"
    channels: int | None = None

    def image(self, native: Image) -> Image:
        """Channels, height and width of images whose own are ``native``."""
        return (self.channels or native[0], *(self.size or native[1:]))

    def distorts(self, native: Image) -> bool:
        """Whether such images have other proportions than the size, so that the fit matters."""
        return self.size is not None and native[1] * self.size[1] != native[2] * self.size[0]

    def frame(self, height: int, width: int) -> Frame:
        """Where the pixels of an image of this height and width go."""
        tall, wide = self.size or (height, width)
        if self.fit == "crop":
            kept = min(height, max(1, round(width * tall / wide))), min(width, max(1, round(height * wide / tall)))
            return Frame(((height - kept[0]) // 2, (width - kept[1]) // 2, *kept), (tall, wide), (0, 0))
        if self.fit == "pad":
            inner = min(tall, max(1, round(height * wide / width))), min(wide, max(1, round(width * tall / height)))
            return Frame((0, 0, height, width), inner, ((tall - inner[0]) // 2, (wide - inner[1]) // 2))
        return Frame((0, 0, height, width), (tall, wide), (0, 0))

    def words(self, distorted: bool) -> str:
        """How images get their size, in words."""
        if self.size is None:
            return "as they are"
        how = f", {DONE[self.fit]} (data.fit: squash, crop or pad)" if distorted else ""
        return f"resized to {self.size[0]}x{self.size[1]}{how}"


NATIVE = Form()
"""Images in their own form."""


def formed(data: DataSet, form: Form) -> DataSet:
    """``data`` in this form.

    Raises:
        UsageError: if its channels cannot be converted to those of the form.
    """
    channels, height, width = data.image
    if form.channels not in (None, channels) and channels not in (1, 3):
        raise UsageError(
            f"data.channels = {form.channels}: {data.name} has images of {channels} channels; leave it out"
        )
    distorted = form.distorts(data.image)

    def load(split: Split) -> Labelled:
        images, classes = data.load(split)
        return Labelled(channelled(resized(images, form), form.channels), classes)

    def content(split: Split) -> str:
        return " ".join(filter(None, [data.content(split), form.fit if distorted else ""]))

    said = f"images of {height}x{width} are {form.words(distorted)}"
    return replace(
        data,
        image=form.image(data.image),
        load=load,
        content=content,
        published=_published(data.published, channels, form.channels or channels),
        notes=(*data.notes, *([said] if distorted else [])),
        reached=form.words(distorted),
        fit=form.fit if distorted else data.fit,
    )


def _published(known: Normalisation | None, channels: int, wanted: int) -> Normalisation | None:
    if known is None or channels == wanted:
        return known
    # Of grey made from colours nobody has published one.
    return Normalisation(known.mean * 3, known.std * 3) if wanted == 3 else None


def resized(images: "Tensor", form: Form, antialias: bool = True) -> "Tensor":
    """Images (n, C, H, W), bytes or floats in [0, 1], resized to ``form``, bilinear; unchanged if it has no size."""
    import torch
    from torch.nn import functional as F

    from lra.images import to_bytes, unit

    height, width = images.shape[2:]
    if form.size in (None, (height, width)):
        return images
    (top, left, tall, wide), inner, corner = form.frame(height, width)
    after = [
        form.size[1] - inner[1] - corner[1],
        form.size[0] - inner[0] - corner[0],
    ]
    parts = []
    for part in images[:, :, top : top + tall, left : left + wide].split(1024):
        new = F.interpolate(unit(part), size=inner, mode="bilinear", antialias=antialias)
        new = F.pad(new, (corner[1], after[0], corner[0], after[1]))
        parts.append(new if images.is_floating_point() else to_bytes(new))
    return torch.cat(parts)


def channelled(images: "Tensor", channels: int | None) -> "Tensor":
    """Images (n, 1 or 3, H, W), bytes or floats, with this many channels."""
    if channels in (None, images.shape[1]):
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    red, green, blue = images.unbind(1)
    if images.is_floating_point():
        return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    # In Pillow's integers, so that arrays and picture files come out the same.
    grey = (red.int() * 19595 + green.int() * 38470 + blue.int() * 7471 + 0x8000) >> 16
    return grey.to(images.dtype)[:, None]
