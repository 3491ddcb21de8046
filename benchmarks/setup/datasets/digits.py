"""Scikit-learn's digits, embedded in its package; and for tasks in sequence some of their classes, or all turned."""

from dataclasses import replace

from lra.benchmarks.setup.datasets.labelled import NATIVE, DataSet, Form, Labelled, Split, formed, resized

DIGITS = tuple("0123456789")
"""What the classes are called."""

ENLARGED = (16, 16)
"""Height and width."""


def digits(form: Form = NATIVE) -> DataSet:
    """Scikit-learn's 8x8 digits, enlarged to 16x16 unless told otherwise: 1437 for training, 360 for testing."""
    sized = replace(form, size=form.size or ENLARGED)
    image = (1, *(sized.size or ENLARGED))

    def load(split: Split) -> Labelled:
        import torch
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, classes = load_digits(return_X_y=True)
        parts = train_test_split(pixels, classes, test_size=0.2, stratify=classes, random_state=0)
        images, targets = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
        small = torch.from_numpy(images / 16.0).float().view(-1, 1, 8, 8)
        return Labelled(resized(small, sized, antialias=False), torch.from_numpy(targets).long())

    distorted = sized.distorts((1, 8, 8))
    native = DataSet(
        "digits",
        image,
        10,
        load,
        "scikit-learn's digits, embedded; 8x8 enlarged",
        content=lambda split: sized.fit if distorted else "",
        names=DIGITS,
        test_images=360,
    )
    return replace(
        formed(native, Form(channels=form.channels)), reached=sized.words(distorted), fit=sized.fit if distorted else ""
    )


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
