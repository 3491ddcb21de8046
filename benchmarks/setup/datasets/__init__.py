"""Labelled images by name: training splits make teachers, test splits evaluate students.

A distillation loads the test split only. What is stored as bytes stays so in memory.
"""

from collections.abc import Callable
from functools import partial

from lra.benchmarks.errors import UsageError, nearest
from lra.benchmarks.setup.datasets.arrays import npz
from lra.benchmarks.setup.datasets.derived import DERIVED
from lra.benchmarks.setup.datasets.digits import digits
from lra.benchmarks.setup.datasets.image_folder import image_folder
from lra.benchmarks.setup.datasets.labelled import DataSet, Labelled, Normalisation, Split, normalisation
from lra.benchmarks.setup.datasets.tiny_imagenet import tiny_imagenet
from lra.benchmarks.setup.datasets.torchvision_sets import KNOWN, torchvision_set

__all__ = ["DATASETS", "PLACES", "DataSet", "Labelled", "Normalisation", "Split", "data_set", "digits", "normalisation"]

DATASETS: dict[str, Callable[[int | None], DataSet]] = {
    "digits": digits,
    **DERIVED,
    **{name: partial(torchvision_set, name) for name in KNOWN},
    "tiny-imagenet": tiny_imagenet,
}
"""Name to data set, called with the side that images are to be resized to, or ``None``."""

PLACES: dict[str, Callable[[str, int | None], DataSet]] = {"imagefolder": image_folder, "npz": npz}
"""What may stand before a colon and the place of a user's own data; called with that place and the side."""


def data_set(name: str, side: int | None = None) -> DataSet:
    """Find a data set by name, with images resized to ``side`` if given.

    Raises:
        UsageError: for an unknown name, or a user's own data that are not as they must be.
        MissingInput: for a user's own data that are not there.
    """
    kind, colon, place = name.partition(":")
    if colon and kind in PLACES:
        return PLACES[kind](place, side)
    if name not in DATASETS:
        known = ", ".join([*DATASETS, "imagefolder:DIR", "npz:FILE"])
        raise UsageError(f"unknown data set {name!r}; did you mean {nearest(name, DATASETS)!r}? Known: {known}")
    return DATASETS[name](side)
