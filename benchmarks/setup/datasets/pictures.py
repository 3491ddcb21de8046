"""Picture files: their headers, and their pixels, decoded into memory as bytes.

They are read like torchvision's ``ImageFolder`` reads them, with which external teachers were trained: palettes become
colours, transparency is dropped, other colour models become RGB, and of 16 bits per channel the upper 8 are kept. Like
there, pictures are not rotated by their EXIF orientation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import ExifTags, ImageOps
from PIL import Image as Pictures

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.datasets.labelled import Form, Image, Labelled

if TYPE_CHECKING:
    from torch import Tensor

Files = Sequence[tuple[str, int]]
"""Picture files and their classes."""

MOST_BYTES = 4 * 2**30
"""Largest size of a split in memory."""

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""

IMAGE_WIDTH, IMAGE_LENGTH = ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength


@dataclass(frozen=True)
class Survey:
    """The result of reading the headers of all pictures.

    Attributes:
        image: channels, height and width that all of them will have.
        distorted: whether some have other proportions.
        notes: what a user should know, a line each.
    """

    image: Image
    distorted: bool
    notes: tuple[str, ...]


class _Head(NamedTuple):
    height: int
    width: int
    grey: bool
    transparent: bool
    deep: bool
    turned: bool


def surveyed(test: Files, train: Files, form: Form) -> Survey:
    """Read the headers of the pictures; of training pictures only until one is coloured.

    Raises:
        UsageError: if one cannot be read, or they differ in size and ``form`` has none.
    """
    heads = [_head(file) for file, _ in test]
    grey = all(head.grey for head in heads) and all(_head(file).grey for file, _ in train)
    sizes = sorted({(head.height, head.width) for head in heads})
    if form.size is None and len(sizes) > 1:
        small, large = ("x".join(map(str, size)) for size in (sizes[0], sizes[-1]))
        raise UsageError(
            f"pictures in {test[0][0]} and others are {small} to {large}: give a size for all with --set data.size=64, "
            "or --set data.size=[48,64] for height and width"
        )
    native = (1 if grey else 3, *sizes[0])
    distorted = any(form.distorts((1, *size)) for size in sizes)
    return Survey(form.image(native), distorted, tuple(_notes(heads, sizes, grey, distorted, form)))


def _notes(
    heads: Sequence[_Head], sizes: Sequence[Image | tuple[int, int]], grey: bool, distorted: bool, form: Form
) -> Iterator[str]:
    if distorted:
        shapes = " to ".join(dict.fromkeys("x".join(map(str, size)) for size in (sizes[0], sizes[-1])))
        yield f"pictures of {shapes} are {form.words(distorted)}"
    some = sum(head.grey for head in heads)
    if not grey and some and form.channels is None:
        yield f"{_count(some, heads)} grey and the others are not: all are read as colours (data.channels)"
    if turned := sum(head.turned for head in heads):
        yield f"{_count(turned, heads)} turned upright as their EXIF orientation says"
    if deep := sum(head.deep for head in heads):
        yield f"{_count(deep, heads)} of 16 bits and scaled down to 8"
    if transparent := sum(head.transparent for head in heads):
        yield f"{_count(transparent, heads)} partly transparent: that is dropped, as torchvision's ImageFolder does"


def _count(some: int, heads: Sequence[_Head]) -> str:
    return f"{some:,} of {len(heads):,} pictures to test on {'is' if some == 1 else 'are'}"


def decoded(files: Files, image: Image, form: Form) -> Labelled:
    """All ``files`` in the shape ``image``, brought to its size as ``form`` says.

    Raises:
        UsageError: if they would take too much memory, or one is damaged or has another shape.
    """
    import torch

    size = len(files) * image[0] * image[1] * image[2]
    if size > MOST_BYTES:
        raise UsageError(
            f"{len(files)} images {image} take {size / 2**30:.1f} GiB of memory, and {MOST_BYTES / 2**30:.0f} are "
            "allowed: make them smaller with --set data.size=64"
        )
    images = torch.empty(len(files), *image, dtype=torch.uint8)
    for place, (file, _) in zip(images, files, strict=True):
        place.copy_(_pixels(file, image, form))
    return Labelled(images, torch.tensor([label for _, label in files]))


def _pixels(file: str, image: Image, form: Form) -> "Tensor":
    import torch

    picture = _opened(file)
    if _orientation(picture) != 1:
        ImageOps.exif_transpose(picture, in_place=True)
    picture = _of_bytes(picture, file).convert("L" if image[0] == 1 else "RGB")
    if form.size is not None:
        picture = _in_form(picture, form)
    elif (picture.height, picture.width) != image[1:]:
        raise UsageError(
            f"picture {file} is {picture.height}x{picture.width} and others are {image[1]}x{image[2]}: "
            "give a size for all with --set data.size=64"
        )
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if image[0] == 1 else pixels.permute(2, 0, 1)


def _in_form(picture: Pictures.Image, form: Form) -> Pictures.Image:
    (top, left, height, width), inner, corner = form.frame(picture.height, picture.width)
    box = (left, top, left + width, top + height)
    new = picture.resize((inner[1], inner[0]), Pictures.Resampling.BILINEAR, box)
    if form.size is None or inner == form.size:
        return new
    ground = Pictures.new(picture.mode, (form.size[1], form.size[0]))
    ground.paste(new, (corner[1], corner[0]))
    return ground


def _of_bytes(picture: Pictures.Image, file: str) -> Pictures.Image:
    """A picture with 8 bits per channel; 16 bits, which Pillow would clip at 255, are scaled down."""
    if not picture.mode.startswith("I"):
        return picture
    levels = np.asarray(picture).astype(np.int64)
    if levels.min() < 0 or levels.max() > 0xFFFF:
        raise UsageError(
            f"picture {file} has levels from {levels.min()} to {levels.max()}: save it with 8 or 16 bits a channel"
        )
    return Pictures.fromarray(((levels + 128) // 257).astype(np.uint8))


def _head(file: str) -> _Head:
    with _opened(file, whole=False) as picture:
        mode = picture.mode
        if mode.startswith("F"):
            raise UsageError(f"picture {file} has levels that are no whole numbers: save it with 8 or 16 bits")
        grey = mode in ("1", "L", "LA", "La") or mode.startswith("I") or (mode in ("P", "PA") and _of_grey(picture))
        orientation, (height, width) = _orientation(picture), _stored_sides(picture)
        return _Head(
            *((width, height) if orientation in SIDEWAYS else (height, width)),
            grey,
            mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info,
            mode.startswith("I"),
            orientation in range(2, 9),
        )


def _orientation(picture: Pictures.Image) -> int:
    """The EXIF orientation of a picture; 1 is upright, also if it cannot be read."""
    try:
        # A PNG's own form of this would decode it first, for what may stand behind its pixels; see `_opened`.
        found = Pictures.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
    except Exception:  # of whatever kind; it is no part of the pixels
        return 1
    return found if isinstance(found, int) else 1


def _stored_sides(picture: Pictures.Image) -> tuple[int, int]:
    """Height and width as stored in the file; for a TIFF, Pillow gives those of the upright picture."""
    tags = getattr(picture, "tag_v2", {}) if picture.format == "TIFF" else {}
    return int(tags.get(IMAGE_LENGTH, picture.height)), int(tags.get(IMAGE_WIDTH, picture.width))


def _speaks_late(file: str) -> bool:
    """Whether EXIF, or text that may hold it, follows the pixels of a PNG."""
    with open(file, "rb") as stream:
        stream.seek(8)
        behind = False
        while len(head := stream.read(8)) == 8:
            if behind and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            behind = behind or head[4:] == b"IDAT"
            stream.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _of_grey(picture: Pictures.Image) -> bool:
    levels = np.array(picture.getpalette() or [0, 1, 2]).reshape(-1, 3)
    return bool((levels == levels[:, :1]).all())


def _opened(file: str, whole: bool = True) -> Pictures.Image:
    try:
        picture = Pictures.open(file)
        if whole or (picture.format == "PNG" and _speaks_late(file)):
            picture.load()
    # What decoders of some thirty formats raise on damaged files has no common type.
    except Exception as error:
        raise UsageError(f"picture {file} cannot be read ({error}): remove it or fetch it again") from None
    return picture
