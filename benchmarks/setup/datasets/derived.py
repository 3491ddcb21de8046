"""Data sets made from another: some of its classes, or its images turned. For tasks in sequence without a download."""

from dataclasses import replace

from lra.benchmarks.setup.datasets.digits import digits
from lra.benchmarks.setup.datasets.labelled import DataSet, Labelled, Split


def part(data: DataSet, name: str, first: int, last: int) -> DataSet:
    """The classes ``first`` to ``last`` of ``data``, numbered from 0."""

    def load(split: Split) -> Labelled:
        images, classes = data.load(split)
        chosen = (classes >= first) & (classes <= last)
        return Labelled(images[chosen], classes[chosen] - first)

    return replace(data, name=name, classes=last - first + 1, load=load, summary=f"{data.name}, {first} to {last} only")


def turned(data: DataSet, name: str) -> DataSet:
    """The images of ``data``, which are square, a quarter turn anticlockwise."""

    def load(split: Split) -> Labelled:
        images, classes = data.load(split)
        return Labelled(images.rot90(1, dims=(2, 3)).contiguous(), classes)

    return replace(data, name=name, load=load, summary=f"{data.name}, a quarter turn anticlockwise")


def digits_0_4(side: int | None = None) -> DataSet:
    """Scikit-learn's digits 0 to 4."""
    return part(digits(side), "digits-0-4", 0, 4)


def digits_5_9(side: int | None = None) -> DataSet:
    """Scikit-learn's digits 5 to 9."""
    return part(digits(side), "digits-5-9", 5, 9)


def digits_turned(side: int | None = None) -> DataSet:
    """Scikit-learn's digits, a quarter turn anticlockwise."""
    return turned(digits(side), "digits-turned")


DERIVED = {"digits-0-4": digits_0_4, "digits-5-9": digits_5_9, "digits-turned": digits_turned}
