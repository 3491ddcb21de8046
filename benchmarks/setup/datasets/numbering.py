"""Map stored labels to classes 0 to K-1, before anything of size K is allocated."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra.benchmarks.errors import UsageError

MOST_CLASSES = 2**16
"""Largest K; the largest image data sets have a third of it."""

FEW_CLASSES, MOST_GAPS = 1000, 10
"""Where a test set alone has gaps, K may be so large, or so many times the classes that have images."""

NAMED = "add an array names to the file, with the name of every class"

Labels = NDArray[Any]


@dataclass(frozen=True)
class Numbering:
    """The class of each label.

    Attributes:
        classes: K.
        values: labels in the order of the classes, unless they are 0 to K-1.
        names: of the classes, if known.
        notes: what a user should know, a line each.
    """

    classes: int
    values: Labels | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, labels: Labels) -> NDArray[np.int64]:
        """The classes (n,) of labels (n,)."""
        if self.values is None:
            return labels
        order = np.argsort(self.values)
        return order[np.searchsorted(self.values, labels, sorter=order)]

    def mark(self, labels: Labels) -> str:
        """What distinguishes this numbering of ``labels`` from the plain one, for the identity of runs that use it."""
        if self.values is None:
            return "" if int(labels.max()) + 1 == self.classes else f"of {self.classes} classes"
        return f"numbered {hashlib.sha256(json.dumps(self.values.tolist()).encode()).hexdigest()[:16]}"


def plain(labels: Labels, images: int, where: str) -> Labels:
    """One label for each of the ``images``: int64, or text.

    Accepted are integers of any type, (n,) or (n, 1); booleans; one-hot rows (n, K); and text.

    Raises:
        UsageError: for anything else; ``where`` begins the line.
    """
    odd = UsageError(f"{where}: labels must be {images} integers, not {labels.dtype} {labels.shape}")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and len(labels) == images and labels.dtype.kind in "biuf":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise UsageError(f"{odd}, whose rows are not one-hot: each image has one class")
        labels = labels.argmax(axis=1)
    if labels.shape != (images,) or images == 0:
        raise odd
    if labels.dtype.kind in "US":
        return np.char.decode(labels, "utf-8", "replace") if labels.dtype.kind == "S" else labels
    if labels.dtype.kind not in "biuf":
        raise odd
    if not (np.isfinite(labels) & (labels == np.floor(labels)) & (labels.astype(float) < 2**53)).all():
        raise UsageError(f"{odd} with values that are none")
    return labels.astype(np.int64)


def says_all(labels: Labels) -> bool:
    """Whether labels (n,) are 0 to K-1 without gaps, so that no other split is needed to number the classes."""
    values = np.unique(labels)
    return values.dtype.kind == "i" and len(values) > 1 and np.array_equal(values, np.arange(len(values)))


def numbered(train: Labels | None, test: Labels, names: Sequence[str] | None, where: str) -> Numbering:
    """Number the classes of both splits at once, so that a split that lacks some classes has the same numbers.

    Labels 0 to K-1 are the classes, as are all labels if ``names`` gives their names. Others are numbered in their
    order, if training labels show which exist. Without training labels, the numbers are those of an external teacher:
    1 to K are read as 0 to K-1, gaps are classes without a test image, and anything else is refused.

    Args:
        train: training labels, if there are any, from `plain`.
        test: test labels.
        names: of all classes, if known.
        where: begins the line of an error.

    Raises:
        UsageError: if they cannot be numbered in this way.
    """
    both = [test] if train is None else [train, test]
    if len({labels.dtype.kind for labels in both}) > 1:
        raise UsageError(f"{where}: some labels are text and some are numbers: write all in one way")
    values = np.unique(np.concatenate(both))
    text = values.dtype.kind == "U"
    if not text and values[0] < 0:
        raise UsageError(f"{where}: labels must count from 0 or 1, not {values[0]} to {values[-1]}")
    if names is not None:
        return _of_names(values, names, where)
    if len(values) < 2:
        raise UsageError(
            f"{where}: labels must be of at least two classes, not {values[0]} to {values[-1]}; if others have no "
            f"image here, {NAMED}"
        )
    if len(values) > MOST_CLASSES:
        raise UsageError(f"{where}: labels have {len(values):,} values, which are no classes: {MOST_CLASSES:,} at most")
    usual = np.arange(len(values))
    if not text and (np.array_equal(values, usual)):
        return Numbering(len(values))
    if text or train is not None or np.array_equal(values, usual + 1):
        return _renumbered(values, where)
    if values[0] != 0 or values[-1] >= max(FEW_CLASSES, MOST_GAPS * len(values)):
        raise UsageError(
            f"{where}: labels are {_some(values)}, and which classes there are is not known: number them from 0, name "
            f"a file to train on too (npz:TRAIN,TEST), or {NAMED}"
        )
    classes = int(values[-1]) + 1
    absent = np.setdiff1d(np.arange(classes), values)
    note = f"{where}: {classes:,} classes, of which {len(absent):,} have no image to test on: {_some(absent)}"
    return Numbering(classes, notes=(note,))


def _renumbered(values: Labels, where: str) -> Numbering:
    names = tuple(map(str, values.tolist()))
    if values.dtype.kind == "U":
        return Numbering(len(values), values, names)
    note = f"{where}: labels {_some(values)} are read as classes 0 to {len(values) - 1}, in this order"
    return Numbering(len(values), values, names, (note,))


def _of_names(values: Labels, names: Sequence[str], where: str) -> Numbering:
    if len(names) < 2 or len(names) > MOST_CLASSES or len(set(names)) < len(names):
        raise UsageError(f"{where}: names must be 2 to {MOST_CLASSES:,} different ones, not {len(names):,}")
    if values.dtype.kind == "U":
        unknown = sorted({*values.tolist()} - {*names})
        if unknown:
            raise UsageError(f"{where}: label {unknown[0]!r} is not among the names of the classes")
        return Numbering(len(names), np.array(names), tuple(names))
    if values[-1] >= len(names):
        raise UsageError(f"{where}: label {values[-1]} and {len(names)} names: labels count from 0 to {len(names) - 1}")
    return Numbering(len(names), names=tuple(names))


def _some(values: Labels, most: int = 6) -> str:
    """Labels in short: as a range if they form one."""
    if len(values) > 2 and values.dtype.kind == "i" and int(values[-1]) - int(values[0]) == len(values) - 1:
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values[:most].tolist())) + (f" ... {values[-1]}" if len(values) > most else "")
