"""Data sets in npz files: ``images``, uint8 (n,H,W) or (n,H,W,C), and ``labels``, integers (n,)."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.files import sha256
from lra.benchmarks.setup.datasets.labelled import DataSet, Labelled, Split, no_training, squared
from lra.benchmarks.setup.places import train_and_test
from lra.benchmarks.untrusted import refuse_zip_bomb


def npz(text: str, side: int | None) -> DataSet:
    """``TEST``; or ``TRAIN,TEST``; or one name with ``{split}`` in it, which stands for train and test.

    Raises:
        MissingInput: if the test file is not there.
        UsageError: if it does not hold such arrays.
    """
    train, test = train_and_test(text)
    held_out = _read(_existing(test), side)

    def load(split: Split) -> Labelled:
        if split == "test":
            return held_out
        real = _read(training(), side)
        if real.images.shape[1:] != held_out.images.shape[1:] or int(real.classes.max()) >= classes:
            raise UsageError(
                f"data file {train} has images {_sizes(real)} of {int(real.classes.max()) + 1} classes and {test} "
                f"{_sizes(held_out)} of {classes}: the file to test on says what both have"
            )
        return real

    def training() -> Path:
        if not train:
            raise no_training(f"npz:{text}", "name both, as npz:TRAIN,TEST")
        return _existing(train)

    @cache  # a sweep asks for each of its runs
    def content(split: Split) -> str:
        return sha256(training() if split == "train" else _existing(test))

    classes = int(held_out.classes.max()) + 1
    channels, height, width = held_out.images.shape[1:]
    return DataSet(f"npz:{text}", (channels, height, width), classes, load, content=content)


def _existing(name: str) -> Path:
    """The file ``name``; `MissingInput` if it is not there."""
    if not Path(name).is_file():
        raise MissingInput(f"data file {name} does not exist: give npz:FILE with arrays images and labels")
    return Path(name)


def _sizes(found: Labelled) -> str:
    return "x".join(map(str, found.images.shape[1:]))


def _read(file: Path, side: int | None) -> Labelled:
    refuse_zip_bomb(file)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            images, labels = np.asarray(arrays["images"]), np.asarray(arrays["labels"])
    # The reader of a damaged file may raise anything: BadZipFile, zlib.error, MemoryError, ...
    except Exception as error:
        raise UsageError(f"data file {file} is not an npz of arrays images and labels: {error}") from None
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise UsageError(f"data file {file}: images must be uint8 (n,H,W[,C]), not {images.dtype} {images.shape}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"data file {file}: labels must be {len(images)} integers, not {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() < 1:
        raise UsageError(
            f"data file {file}: labels must count from 0 up to 1 at least, not {labels.min()} to {labels.max()}"
        )
    tensor = torch.from_numpy(images)
    tensor = tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
    return Labelled(squared(tensor, side), torch.from_numpy(labels.astype(np.int64)))
