"""Labelled images by name: training splits are for teachers, test splits for evaluating students.

A distillation loads only the test split. Images stored as bytes stay bytes in memory. Data sets can be described
without importing torch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lra.benchmarks.errors import UsageError, suggestion
from lra.benchmarks.setup.datasets.arrays import npz
from lra.benchmarks.setup.datasets.image_folder import image_folder
from lra.benchmarks.setup.datasets.known_sets import DERIVED, KNOWN, digits, tiny_imagenet, torchvision_set
from lra.benchmarks.setup.datasets.labelled import DataSet, Fit, Form, Labelled, Normalisation, Split, normalisation

if TYPE_CHECKING:
    from lra.benchmarks.setup.config import DataOptions

__all__ = [
    "DATASETS",
    "PLACES",
    "DataSet",
    "Form",
    "Labelled",
    "Normalisation",
    "Split",
    "data_of",
    "data_set",
    "digits",
    "normalisation",
]

DATASETS: dict[str, Callable[[Form], DataSet]] = {
    "digits": digits,
    **DERIVED,
    **{name: partial(torchvision_set, name) for name in KNOWN},
    "tiny-imagenet": tiny_imagenet,
}
"""Functions that make a data set, by its name; called with the form of its images."""

PLACES: dict[str, Callable[[str, Form], DataSet]] = {"imagefolder": image_folder, "npz": npz}
"""The same for a user's own data, by what precedes the colon in its name; also called with its place."""


def data_of(options: "DataOptions") -> DataSet:
    """The data set of a configuration.

    Raises:
        UsageError, MissingInput: as `data_set`.
    """
    return data_set(options.name, options.size, options.fit, options.channels)


def data_set(
    name: str, size: int | Sequence[int] | None = None, fit: Fit = "squash", channels: int | None = None
) -> DataSet:
    """Find a data set by name.

    Args:
        name: of one of `DATASETS`, or ``imagefolder:DIR``, ``npz:FILE``.
        size: to which images are resized: a side, or height and width; their own if not given.
        fit: how images with other proportions are brought to it.
        channels: 1 or 3; their own if not given.

    Raises:
        UsageError: for an unknown name, or a user's own data that are not valid.
        MissingInput: for a user's own data that do not exist.
    """
    sides = size if size is None else (size, size) if isinstance(size, int) else (size[0], size[1])
    form = Form(sides, fit, channels)
    kind, colon, place = name.partition(":")
    if colon and kind in PLACES:
        return PLACES[kind](place, form)
    if name not in DATASETS:
        known = [*DATASETS, "imagefolder:DIR", "npz:FILE"]
        raise UsageError(f"unknown data set {name!r}; {suggestion(name, known)}")
    return DATASETS[name](form)
