"""Scikit-learn's digits, embedded in its package."""

from dataclasses import replace

from lra.benchmarks.setup.datasets.class_names import DIGITS
from lra.benchmarks.setup.datasets.form import NATIVE, Form, formed, resized
from lra.benchmarks.setup.datasets.labelled import DataSet, Labelled, Split

ENLARGED = (16, 16)


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
