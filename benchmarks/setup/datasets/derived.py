"""Data sets made from another: some of its classes, or its images turned. For tasks in sequence without a download."""

from dataclasses import replace

from lra.benchmarks.setup.datasets.digits import digits
from lra.benchmarks.setup.datasets.form import Form
from lra.benchmarks.setup.datasets.labelled import DataSet, Labelled, Split


def part(data: DataSet, name: str, first: int, last: int, test_images: int) -> DataSet:
    """The classes ``first`` to ``last`` of ``data``, numbered from 0; ``test_images`` of them are for testing."""

    def load(split: Split) -> Labelled:
        images, classes = data.load(split)
        chosen = (classes >= first) & (classes <= last)
        return Labelled(images[chosen], classes[chosen] - first)

    return replace(
        data,
        name=name,
        classes=last - first + 1,
        load=load,
        summary=f"{data.name}, {first} to {last} only",
        names=data.names[first : last + 1],
        test_images=test_images,
    )


def turned(data: DataSet, name: str) -> DataSet:
    """The images of ``data``, a quarter turn anticlockwise."""
    channels, height, width = data.image

    def load(split: Split) -> Labelled:
        images, classes = data.load(split)
        return Labelled(images.rot90(1, dims=(2, 3)).contiguous(), classes)

    return replace(
        data,
        name=name,
        image=(channels, width, height),
        load=load,
        summary=f"{data.name}, a quarter turn anticlockwise",
        reached=f"{data.reached}, then turned",
    )


def digits_0_4(form: Form) -> DataSet:
    """Scikit-learn's digits 0 to 4."""
    return part(digits(form), "digits-0-4", 0, 4, 180)


def digits_5_9(form: Form) -> DataSet:
    """Scikit-learn's digits 5 to 9."""
    return part(digits(form), "digits-5-9", 5, 9, 180)


def digits_turned(form: Form) -> DataSet:
    """Scikit-learn's digits, a quarter turn anticlockwise."""
    before = form if form.size is None else replace(form, size=(form.size[1], form.size[0]))
    return turned(digits(before), "digits-turned")


DERIVED = {"digits-0-4": digits_0_4, "digits-5-9": digits_5_9, "digits-turned": digits_turned}
