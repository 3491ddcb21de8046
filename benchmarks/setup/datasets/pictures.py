"""Picture files, decoded into memory as bytes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image as Pictures
from PIL import ImageOps
from torch import Tensor

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.datasets.labelled import Image, Labelled

MOST_BYTES = 4 * 2**30
"""What a split may take in memory."""

Files = Sequence[tuple[str, int]]
"""Picture files and their classes."""


def listed(folder: Path) -> tuple[list[str], Files]:
    """The classes of ``folder``, one a folder in it, in alphabetical order, and all pictures in them.

    Raises:
        UsageError: if there are none.
    """
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise UsageError(f"data folder {folder} has no folder of pictures for each class: {error}") from None
    return found.classes, found.samples


def shape_of(file: str, side: int | None) -> Image:
    """Channels, height and width of a picture, ``side`` in place of the last two if given: grey ones have 1 channel."""
    picture = _opened(file)
    channels = 1 if picture.mode in ("1", "L", "LA") else 3
    return (channels, side or picture.height, side or picture.width)


def decoded(files: Files, image: Image, side: int | None) -> Labelled:
    """All ``files``, with ``side`` cropped to their central square and resized to it.

    Raises:
        UsageError: if they would take too much memory, or one is damaged or not of the shape ``image``.
    """
    size = len(files) * image[0] * image[1] * image[2]
    if size > MOST_BYTES:
        raise UsageError(
            f"{len(files)} images {image} take {size / 2**30:.1f} GiB of memory, and {MOST_BYTES / 2**30:.0f} are "
            "allowed: make them smaller with --set data.size=64"
        )
    images = torch.empty(len(files), *image, dtype=torch.uint8)
    for place, tensor in zip(images, _tensors(files, image, side), strict=True):
        place.copy_(tensor)
    return Labelled(images, torch.tensor([label for _, label in files]))


def _tensors(files: Files, image: Image, side: int | None) -> Iterator[Tensor]:
    from torchvision.transforms.functional import pil_to_tensor

    for file, _ in files:
        picture = _opened(file).convert("L" if image[0] == 1 else "RGB")
        if side is not None:
            picture = ImageOps.fit(picture, (side, side), Pictures.Resampling.BILINEAR)
        elif (picture.height, picture.width) != image[1:]:
            raise UsageError(
                f"picture {file} is {picture.height}x{picture.width} and others are {image[1]}x{image[2]}: "
                "give a size for all with --set data.size=64"
            )
        yield pil_to_tensor(picture)


def _opened(file: str) -> Pictures.Image:
    try:
        picture = Pictures.open(file)
        picture.load()
    # What decoders of some thirty formats raise on damaged files has no common type.
    except Exception as error:
        raise UsageError(f"picture {file} cannot be read ({error}): remove it or fetch it again") from None
    # Pillow would cut off what exceeds a byte.
    if picture.mode.startswith(("I", "F")):
        raise UsageError(f"picture {file} has more than 8 bits a channel: convert it to 8 bits")
    return picture
