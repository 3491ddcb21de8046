"""Data sets in npz files: images and labels, for one split or both."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.files import refuse_zip_bomb, sha256
from lra.benchmarks.setup.datasets.labelled import (
    SPLIT_NAMES,
    DataSet,
    Form,
    Image,
    Labelled,
    Split,
    formed,
    no_training,
)
from lra.benchmarks.setup.datasets.numbering import NAMED, Labels, numbered, plain, says_all
from lra.benchmarks.setup.places import train_and_test

if TYPE_CHECKING:
    from torch import Tensor

MEANINGS = {
    **dict.fromkeys(("images", "image", "x", "data"), "images"),
    **dict.fromkeys(("labels", "label", "y", "targets", "target"), "labels"),
    **dict.fromkeys(("names", "class names", "label names"), "names"),
    "layout": "layout",
}
"""Names of arrays, in lower case and combined with the name of a split: x_train and test_labels are understood."""

MOST_CHANNELS = 4
"""An axis up to this length is taken for channels, a longer one for pixels, unless the other two show otherwise."""


@dataclass(frozen=True)
class _Part:
    """A split in a file; of its images only the header has been read."""

    file: Path
    key: str
    count: int
    image: Image
    channels_first: bool
    labels: Labels
    names: tuple[str, ...] | None
    notes: tuple[str, ...]


def npz(text: str, form: Form) -> DataSet:
    """A data set from ``TEST``; ``TRAIN,TEST``; or one name with ``{split}``, which stands for train and test.

    A file has arrays ``images``, (n,H,W), (n,H,W,C) or (n,C,H,W), and ``labels``, and optionally ``names`` of the
    classes; or it has two or three splits, like those of MedMNIST (``train_images``) and Keras (``x_train``).

    Whoever has a teacher may no longer have its training images: without TRAIN, everything is taken from TEST.

    Raises:
        MissingInput: if a file does not exist and is needed.
        UsageError: if it does not hold such arrays.
    """
    before, after = train_and_test(text)
    test = _part(_existing(after), "test")
    gone = bool(before) and not Path(before).is_file()
    if gone and not (test.names or says_all(test.labels)):
        raise MissingInput(
            f"{_absent(before)}; {after} alone does not say which classes there are: its labels are not 0 to K-1, each "
            f"of them there; if the training images are no more, {NAMED}"
        )
    if before:
        train = None if gone else _part(Path(before), "train")
    else:
        train = _found(test.file, "train", ("train",))
    parts = {"train": train, "test": test}
    names = next((part.names for part in (test, train) if part is not None and part.names is not None), None)
    numbering = numbered(None if train is None else train.labels, test.labels, names, f"data file {after}")
    if train is not None and (train.image[0] != test.image[0] or (form.size is None and train.image != test.image)):
        raise UsageError(
            f"data file {before or after} has images {_sizes(train)} of {len(np.unique(train.labels))} classes and "
            f"{after} {_sizes(test)} of {len(np.unique(test.labels))}: the file to test on says what both have; "
            "sizes become one with --set data.size=[H,W]"
        )

    def part_of(split: Split) -> _Part:
        found = parts[split]
        if found is None and gone:
            raise MissingInput(f"{_absent(before)}, or the file of a teacher (--teacher FILE), which needs no training")
        if found is None:
            raise no_training(f"npz:{text}", "name both, as npz:TRAIN,TEST")
        return found

    def load(split: Split) -> Labelled:
        import torch

        part = part_of(split)
        return Labelled(_pixels(part), torch.from_numpy(numbering.of(part.labels)))

    @cache  # a sweep asks for each of its runs
    def content(split: Split) -> str:
        return " ".join(filter(None, [sha256(part_of(split).file), numbering.mark(part_of(split).labels)]))

    said = [note for part in (train, test) if part is not None for note in part.notes]
    if gone:
        said.append(f"data file {before} is not there: the {numbering.classes} classes are those that {after} has")
    native = DataSet(
        f"npz:{text}",
        test.image,
        numbering.classes,
        load,
        content=content,
        names=numbering.names,
        test_images=test.count,
        notes=(*dict.fromkeys(said), *numbering.notes),
    )
    return formed(native, form)


def _existing(name: str) -> Path:
    """The file ``name``; `MissingInput` if it does not exist."""
    if not Path(name).is_file():
        raise MissingInput(_absent(name))
    return Path(name)


def _absent(name: str) -> str:
    return f"data file {name} does not exist: give npz:FILE with arrays images and labels"


def _sizes(part: _Part) -> str:
    return "x".join(map(str, part.image))


def _part(file: Path, split: Split) -> _Part:
    """The arrays of ``file`` for ``split``: those named so, validation ones for testing, or those without a split.

    Raises:
        UsageError: if there are none.
    """
    found = _found(file, split, ("test", "val", None) if split == "test" else ("train", None))
    if found is None:
        raise UsageError(
            f"data file {file} is not an npz of arrays images and labels to {split} on{_having(_headers(file))}: call "
            "them so, or x_train, y_train, x_test and y_test"
        )
    return found


def _found(file: Path, split: Split, places: Sequence[str | None]) -> _Part | None:
    """The first of ``places`` that is in ``file``, for ``split``."""
    refuse_zip_bomb(file)
    headers = _headers(file)
    keys = _understood(file, headers)
    there = [place for place in places if {(place, "images"), (place, "labels")} <= keys.keys()]
    if not there:
        return None
    place = there[0]
    images, labels = keys[place, "images"], keys[place, "labels"]
    shape, kind = headers[images]
    for key in (images, labels):
        if headers[key][1] == "O":
            raise UsageError(f"data file {file} is not an npz of arrays images and labels: {key} is of objects")
    if kind not in "uifb" or len(shape) not in (3, 4) or 0 in shape:
        raise UsageError(
            f"data file {file}: {images} must be uint8 or floats, (n,H,W), (n,H,W,C) or (n,C,H,W), not {shape}"
            + ("" if kind in "uifb" else " of what is no number")
        )
    layout = keys.get((None, "layout"))
    image, first, note = _axes(file, images, shape, None if layout is None else str(_array(file, layout)))
    names = keys.get((None, "names"))
    notes = [note] if note else []
    if (images, labels) != ("images", "labels"):
        aside = f"; {keys['val', 'images']} are left aside" if place == "test" and ("val", "images") in keys else ""
        notes.append(f"data file {file}: {images} and {labels} are those to {split} on{aside}")
    return _Part(
        file,
        images,
        shape[0],
        image,
        first,
        plain(_array(file, labels), shape[0], f"data file {file}"),
        None if names is None else tuple(map(str, _array(file, names).ravel().tolist())),
        tuple(notes),
    )


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind of dtype of every array in a file, without its content."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        with ZipFile(file) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    first, second = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
                    shape, _, dtype = (first if version == (1, 0) else second)(stream)
                    held = member.file_size - stream.tell()
                if not dtype.hasobject and prod(shape) * dtype.itemsize != held:
                    raise ValueError(f"{member.filename} says {shape} and holds {held:,} bytes")
                found[member.filename.removesuffix(".npy")] = (shape, dtype.kind)
    # The reader of a damaged file may raise anything: BadZipFile, zlib.error, MemoryError, ...
    except Exception as error:
        raise UsageError(f"data file {file} is not an npz of arrays images and labels: {error}") from None
    return found


def _array(file: Path, key: str) -> NDArray[Any]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[key])
    except Exception as error:
        raise UsageError(f"data file {file} is not an npz of arrays images and labels: {key}: {error}") from None


def _having(headers: Mapping[str, object]) -> str:
    return f", but has {', '.join([*headers][:8])}" if headers else ""


def _understood(file: Path, headers: Mapping[str, object]) -> dict[tuple[str | None, str], str]:
    """The arrays by split and meaning.

    Raises:
        UsageError: if two have the same split and meaning.
    """
    found: dict[tuple[str | None, str], str] = {}
    for key in headers:
        words = re.findall("[a-z]+", key.lower())
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
        meaning = MEANINGS.get(" ".join(word for word in words if word not in SPLIT_NAMES))
        if meaning is None:
            continue
        if (split, meaning) in found:
            raise UsageError(f"data file {file} has {found[split, meaning]} and {key} for the same: leave one out")
        found[split, meaning] = key
    return found


def _axes(file: Path, key: str, shape: tuple[int, ...], layout: str | None) -> tuple[Image, bool, str]:
    """Channels, height and width of images of this shape, whether channels come first, and a note on that.

    Raises:
        UsageError: if the shape does not show which axis has the channels.
    """
    if len(shape) == 3:
        return (1, shape[1], shape[2]), False, ""
    _, a, b, c = shape
    if layout is not None and layout not in ("NHWC", "NCHW"):
        raise UsageError(f"data file {file}: layout is {layout!r}; choose NHWC, channels last, or NCHW, channels first")
    short = (a <= MOST_CHANNELS, c <= MOST_CHANNELS)
    first = layout == "NCHW" or (layout is None and (short == (True, False) or (short == (False, False) and b == c)))
    last = layout == "NHWC" or (layout is None and (short == (False, True) or (short == (False, False) and a == b)))
    if first == last:
        raise UsageError(
            f"data file {file}: which axis of {key} {shape} has the channels is not clear: add an array layout that is "
            "'NHWC' or 'NCHW' to the file"
        )
    if last:
        return (c, a, b), False, ""
    return (a, b, c), True, f"data file {file}: {key} {shape} have their channels first: {b}x{c}, {a} channel(s)"


def _pixels(part: _Part) -> "Tensor":
    """The images of a split (n, C, H, W), as bytes or floats in [0, 1]."""
    import torch

    images = _array(part.file, part.key)
    if images.shape[0] != part.count:
        raise UsageError(f"data file {part.file} was changed while it was read: start again")
    tensor = torch.from_numpy(np.ascontiguousarray(_levels(images, part)))
    if tensor.ndim == 3:
        return tensor[:, None]
    return tensor if part.channels_first else tensor.permute(0, 3, 1, 2).contiguous()


def _levels(images: NDArray[Any], part: _Part) -> NDArray[Any]:
    """Images as bytes, or as float32 in [0, 1].

    Integers up to 255 are taken as bytes; those up to 65535 as 16 bits, scaled down; floats may be in [0, 1], or up to
    255.
    """
    where = f"data file {part.file}: {part.key}"
    if images.dtype == bool:
        return images.astype(np.uint8) * 255
    low, high = images.min(), images.max()
    if images.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high) and low >= 0 and high <= 255):
            raise UsageError(
                f"{where} are floats from {low:g} to {high:g}: save them in [0, 1], or in 0 to 255, as they were "
                "before they were normalised"
            )
        return (images / (255 if high > 1 else 1)).astype(np.float32)
    if low < 0 or high > 0xFFFF or (high > 0xFF and images.dtype != np.uint16):
        raise UsageError(f"{where} are {images.dtype} from {low} to {high}: save them as bytes, 0 to 255")
    if high == 1:
        raise UsageError(f"{where} are {images.dtype} of only 0 and 1: multiply them by 255, or save them as floats")
    if high > 0xFF:
        return ((images.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return images.astype(np.uint8)
