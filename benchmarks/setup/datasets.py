"""Labelled images by name, as tensors in [0, 1]: training splits make teachers, test splits evaluate students.

A distillation loads the test split only.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lra.benchmarks.errors import MissingInput, UsageError

Split = Literal["train", "test"]


class Labelled(NamedTuple):
    """Images (n, C, H, W) float in [0, 1] and classes (n,) int64."""

    images: Tensor
    classes: Tensor


@dataclass(frozen=True)
class DataSet:
    """A data set that can be loaded split by split.

    Attributes:
        name: as typed after ``--dataset``.
        image: (channels, height, width).
        classes: K.
        load: gives a split; raises `MissingInput` where files are missing.
        summary: one line for listings.
    """

    name: str
    image: tuple[int, int, int]
    classes: int
    load: Callable[[Split], Labelled]
    summary: str = ""


def _digits(side: int) -> Callable[[Split], Labelled]:
    def load(split: Split) -> Labelled:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, classes = load_digits(return_X_y=True)
        parts = train_test_split(pixels, classes, test_size=0.2, stratify=classes, random_state=0)
        images, targets = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
        small = torch.from_numpy(images / 16.0).float().view(-1, 1, 8, 8)
        large = F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
        return Labelled(large, torch.from_numpy(targets).long())

    return load


def _from_npz(path: Path) -> DataSet:
    """A data set of arrays ``images`` (uint8, n,H,W[,C]) and ``labels``; ``FILE`` may hold ``{split}``."""

    def load(split: Split) -> Labelled:
        file = Path(str(path).replace("{split}", split))
        if not file.is_file():
            raise MissingInput(f"data file {file} does not exist: give npz:FILE with arrays images and labels")
        try:
            with np.load(file, allow_pickle=False) as arrays:
                images, labels = arrays["images"], arrays["labels"]
        except (ValueError, OSError, KeyError) as error:
            raise UsageError(f"data file {file} is not an npz of arrays images and labels: {error}") from None
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels) or not len(images):
            raise UsageError(f"data file {file}: images must be uint8 (n,H,W[,C]) with as many labels")
        tensor = torch.from_numpy(images).float().div(255)
        tensor = tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
        return Labelled(tensor, torch.from_numpy(labels.astype(np.int64)))

    sample = load("test")
    channels, height, width = sample.images.shape[1:]
    classes = int(sample.classes.max()) + 1
    return DataSet(f"npz:{path}", (channels, height, width), classes, load)


def digits(side: int | None = None) -> DataSet:
    """Scikit-learn's 8x8 digits, enlarged to 16x16 unless told otherwise: 1437 for training, 360 for testing."""
    side = side or 16
    return DataSet("digits", (1, side, side), 10, _digits(side), "scikit-learn's digits, embedded")


DATASETS: dict[str, Callable[[int | None], DataSet]] = {"digits": digits}
"""Name to data set; ``npz:FILE`` is understood beside these."""


def data_set(name: str, side: int | None = None) -> DataSet:
    """Find a data set by name, with images resized to ``side`` if given.

    Raises:
        UsageError: for an unknown name.
        MissingInput: for a file that is not there.
    """
    if name.startswith("npz:"):
        if side is not None:
            raise UsageError(f"data.size = {side}: images of npz files are used in their own size")
        return _from_npz(Path(name.removeprefix("npz:")))
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0)[0]
        raise UsageError(f"unknown data set {name!r}; did you mean {near!r}? Known: {', '.join(DATASETS)}, npz:FILE")
    return DATASETS[name](side)
