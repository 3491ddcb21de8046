"""Tiny-ImageNet as its archive is laid out."""

from pathlib import Path

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.setup.datasets.folders import Files, scanned
from lra.benchmarks.setup.datasets.form import Form
from lra.benchmarks.setup.datasets.labelled import DataSet, Labelled, Split
from lra.benchmarks.setup.datasets.pictures import decoded
from lra.benchmarks.setup.datasets.torchvision_sets import HALF, data_folder

FOLDER = "tiny-imagenet-200"


def tiny_imagenet(form: Form) -> DataSet:
    """Tiny-ImageNet: ``train/CLASS/images`` to train, ``val/images`` with ``val/val_annotations.txt`` to test on."""
    native = (3, 64, 64)
    distorted = form.distorts(native)

    def load(split: Split) -> Labelled:
        if not present():
            raise MissingInput(
                f"data set tiny-imagenet is not in {data_folder()}: unpack its archive there as {FOLDER}, or name the "
                "folder that has it in the environment variable LRA_DATA"
            )
        folder = data_folder() / FOLDER
        found = scanned(folder / "train")
        if len(found.classes) != 200:
            raise UsageError(
                f"{folder / 'train'} has {len(found.classes)} classes in place of 200: unpack the archive again"
            )
        files = found.files if split == "train" else _annotated(folder / "val", found.classes)
        return decoded(files, form.image(native), form)

    def present() -> bool:
        return (data_folder() / FOLDER).is_dir()

    return DataSet(
        "tiny-imagenet",
        form.image(native),
        200,
        load,
        f"the archive, unpacked as {FOLDER}",
        HALF if form.channels != 1 else None,
        present,
        lambda split: form.fit if distorted else "",
        _names(data_folder() / FOLDER),
        10_000,
        reached=form.words(distorted),
        fit=form.fit if distorted else "",
    )


def _names(folder: Path) -> tuple[str, ...]:
    """The words that the archive has for its 200 classes; none where it is not here, or not whole."""
    try:
        words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines())
        return tuple(words[line].split(",")[0] for line in sorted((folder / "wnids.txt").read_text().split()))
    except (OSError, ValueError, KeyError):
        return ()


def _annotated(folder: Path, classes: list[str]) -> Files:
    """The pictures of ``val``, whose classes stand in a table: file, class, box."""
    numbers = {name: number for number, name in enumerate(classes)}
    table = folder / "val_annotations.txt"
    try:
        rows = [line.split("\t") for line in table.read_text().splitlines() if line]
        return [(str(folder / "images" / name), numbers[label]) for name, label, *_ in rows]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{table} cannot be read ({error!r}): unpack the archive again") from None
