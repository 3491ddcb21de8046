"""Data sets that are known by name.

Scikit-learn's digits are part of its package; for tasks in sequence there are subsets of their classes, and all of them
rotated. The others are in the data folder, and nothing is downloaded unless a user asks for it.
"""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from lra.benchmarks.errors import MissingInput, UsageError, suggestion
from lra.benchmarks.setup.datasets.image_folder import scanned
from lra.benchmarks.setup.datasets.labelled import (
    NATIVE,
    DataSet,
    Form,
    Image,
    Labelled,
    Normalisation,
    Split,
    formed,
    resized,
)
from lra.benchmarks.setup.datasets.pictures import Files, decoded

DIGITS = tuple("0123456789")

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

CIFAR100 = tuple(_CIFAR100.split())

ENLARGED = (16, 16)
"""Default height and width of the digits."""


def digits(form: Form = NATIVE) -> DataSet:
    """Scikit-learn's 8x8 digits, by default enlarged to 16x16: 1437 for training, 360 for testing."""
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


@dataclass(frozen=True)
class _Known:
    reader: str
    """Name of torchvision's class."""
    place: str
    """Its part of the data folder, in torchvision's layout."""
    image: Image
    normalisation: Normalisation
    """Mean and standard deviation as used in the literature of data-free distillation."""
    names: tuple[str, ...]
    """Names of its classes."""
    test_images: int = 10_000


HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

KNOWN = {
    "mnist": _Known("MNIST", "MNIST/raw", (1, 28, 28), Normalisation((0.1307,), (0.3081,)), DIGITS),
    "fashion-mnist": _Known(
        "FashionMNIST", "FashionMNIST/raw", (1, 28, 28), Normalisation((0.2860,), (0.3530,)), FASHION
    ),
    "svhn": _Known("SVHN", "test_32x32.mat", (3, 32, 32), HALF, DIGITS, 26_032),
    "cifar10": _Known(
        "CIFAR10",
        "cifar-10-batches-py",
        (3, 32, 32),
        Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        CIFAR10,
    ),
    "cifar100": _Known(
        "CIFAR100",
        "cifar-100-python",
        (3, 32, 32),
        Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        CIFAR100,
    ),
}


def data_folder() -> Path:
    """The folder of downloaded data sets: ``$LRA_DATA``, or a folder in the user's cache."""
    return Path(os.environ.get("LRA_DATA") or user_cache_path("lra") / "data").expanduser()


def torchvision_set(name: str, form: Form) -> DataSet:
    """One of `KNOWN`, as bytes."""
    known = KNOWN[name]
    native = DataSet(
        name,
        known.image,
        len(known.names),
        partial(_load, name),
        f"torchvision's {known.reader}",
        known.normalisation,
        lambda: (data_folder() / known.place).exists(),
        names=known.names,
        test_images=known.test_images,
    )
    return formed(native, form)


def fetch(name: str) -> Path:
    """Download a data set into the data folder, unless it is there, and return the folder.

    Raises:
        UsageError: if torchvision cannot download it.
        MissingInput: if the download failed.
    """
    if name not in KNOWN:
        raise UsageError(f"data set {name!r} is not one to fetch; {suggestion(name, KNOWN)}")
    for split in ("train", "test"):
        try:
            _read(name, split, download=True)
        # A server, a full disk, a damaged archive: they fail with anything.
        except Exception as error:
            raise MissingInput(
                f"data set {name} could not be fetched into {data_folder()} ({error}): check the network, or put its "
                "files there by hand"
            ) from None
    return data_folder()


def _load(name: str, split: Split) -> Labelled:
    if not (data_folder() / KNOWN[name].place).exists():
        raise MissingInput(
            f"data set {name} is not in {data_folder()}: fetch it with lra-bench data fetch {name}, or name the folder "
            "that has it in the environment variable LRA_DATA"
        )
    try:
        found = _read(name, split)
    # What torchvision's readers raise at damaged files is anything.
    except Exception as error:
        raise MissingInput(
            f"data set {name} in {data_folder()} cannot be read ({error}): delete it there and fetch it again with "
            f"lra-bench data fetch {name}"
        ) from None
    import torch

    images = torch.as_tensor(found.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2).contiguous()
    classes = found.labels if name == "svhn" else found.targets
    return Labelled(images, torch.as_tensor(classes).long())


def _read(name: str, split: Split, download: bool = False) -> Any:
    from torchvision import datasets

    which: dict[str, Any] = {"split": split} if name == "svhn" else {"train": split == "train"}
    return getattr(datasets, KNOWN[name].reader)(data_folder(), **which, download=download)


TINY = "tiny-imagenet-200"


def tiny_imagenet(form: Form) -> DataSet:
    """Tiny-ImageNet: trains on ``train/CLASS/images``, tests on ``val/images`` with ``val/val_annotations.txt``."""
    native = (3, 64, 64)
    distorted = form.distorts(native)

    def load(split: Split) -> Labelled:
        if not present():
            raise MissingInput(
                f"data set tiny-imagenet is not in {data_folder()}: unpack its archive there as {TINY}, or name the "
                "folder that has it in the environment variable LRA_DATA"
            )
        folder = data_folder() / TINY
        found = scanned(folder / "train")
        if len(found.classes) != 200:
            raise UsageError(
                f"{folder / 'train'} has {len(found.classes)} classes in place of 200: unpack the archive again"
            )
        files = found.files if split == "train" else _annotated(folder / "val", found.classes)
        return decoded(files, form.image(native), form)

    def present() -> bool:
        return (data_folder() / TINY).is_dir()

    return DataSet(
        "tiny-imagenet",
        form.image(native),
        200,
        load,
        f"the archive, unpacked as {TINY}",
        HALF if form.channels != 1 else None,
        present,
        lambda split: form.fit if distorted else "",
        _tiny_names(data_folder() / TINY),
        10_000,
        reached=form.words(distorted),
        fit=form.fit if distorted else "",
    )


def _tiny_names(folder: Path) -> tuple[str, ...]:
    """The archive's words for its 200 classes; none if it is not here, or incomplete."""
    try:
        words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines())
        return tuple(words[line].split(",")[0] for line in sorted((folder / "wnids.txt").read_text().split()))
    except (OSError, ValueError, KeyError):
        return ()


def _annotated(folder: Path, classes: list[str]) -> Files:
    """The pictures of ``val``, whose classes are in a table: file, class, box."""
    numbers = {name: number for number, name in enumerate(classes)}
    table = folder / "val_annotations.txt"
    try:
        rows = [line.split("\t") for line in table.read_text().splitlines() if line]
        return [(str(folder / "images" / name), numbers[label]) for name, label, *_ in rows]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{table} cannot be read ({error!r}): unpack the archive again") from None
