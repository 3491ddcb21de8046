"""Tiny-ImageNet as its archive is laid out."""

from pathlib import Path

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.setup.datasets.labelled import DataSet, Labelled, Split
from lra.benchmarks.setup.datasets.pictures import Files, decoded, listed
from lra.benchmarks.setup.datasets.torchvision_sets import HALF, data_folder

FOLDER = "tiny-imagenet-200"


def tiny_imagenet(side: int | None = None) -> DataSet:
    """Tiny-ImageNet: ``train/CLASS/images`` to train, ``val/images`` with ``val/val_annotations.txt`` to test on."""
    image = (3, side or 64, side or 64)

    def load(split: Split) -> Labelled:
        if not present():
            raise MissingInput(
                f"data set tiny-imagenet is not in {data_folder()}: unpack its archive there as {FOLDER}, or name the "
                "folder that has it in the environment variable LRA_DATA"
            )
        folder = data_folder() / FOLDER
        classes, training = listed(folder / "train")
        if len(classes) != 200:
            raise UsageError(f"{folder / 'train'} has {len(classes)} classes in place of 200: unpack the archive again")
        files = training if split == "train" else _annotated(folder / "val", classes)
        return decoded(files, image, side)

    def present() -> bool:
        return (data_folder() / FOLDER).is_dir()

    return DataSet("tiny-imagenet", image, 200, load, f"the archive, unpacked as {FOLDER}", HALF, present)


def _annotated(folder: Path, classes: list[str]) -> Files:
    """The pictures of ``val``, whose classes stand in a table: file, class, box."""
    numbers = {name: number for number, name in enumerate(classes)}
    table = folder / "val_annotations.txt"
    try:
        rows = [line.split("\t") for line in table.read_text().splitlines() if line]
        return [(str(folder / "images" / name), numbers[label]) for name, label, *_ in rows]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{table} cannot be read ({error!r}): unpack the archive again") from None
