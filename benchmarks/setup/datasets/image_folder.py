"""Any folder of pictures, one folder a class."""

import hashlib
import json
from functools import cache
from pathlib import Path

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.setup.datasets.labelled import DataSet, Split, no_training
from lra.benchmarks.setup.datasets.pictures import Files, decoded, listed, shape_of


def image_folder(text: str, side: int | None) -> DataSet:
    """A folder with ``train/CLASS/`` and ``test/CLASS/`` (or ``val/``), or with ``CLASS/`` alone.

    Of the latter a fifth is for testing: the pictures whose path in the folder has a hash divisible by five, so that
    each stays where it is when others are added. The first picture of the test split says whether all are grey, and
    how large they are unless ``side`` does.

    Raises:
        MissingInput: if the folder or its test split is not there.
        UsageError: if it is not laid out so.
    """
    folder = Path(text)
    if not folder.is_dir():
        raise MissingInput(f"data folder {folder} does not exist: give imagefolder:DIR with a folder for each class")
    classes, splits = _splits(folder)
    if len(classes) < 2:
        raise UsageError(f"data folder {folder} has the class {classes[0]} alone: two at least are needed")
    if not splits["test"]:
        raise UsageError(f"data folder {folder} has too few pictures to hold out a fifth: make train/ and test/ in it")
    image = shape_of(splits["test"][0][0], side)

    def files(split: Split) -> Files:
        if not splits[split]:
            raise no_training(f"imagefolder:{text}", "put them into train/ beside test/")
        return splits[split]

    @cache  # a sweep asks for each of its runs
    def content(split: Split) -> str:
        sizes = [(_within(file, folder), Path(file).stat().st_size) for file, _ in files(split)]
        return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()

    return DataSet(
        f"imagefolder:{text}", image, len(classes), lambda split: decoded(files(split), image, side), content=content
    )


def _splits(folder: Path) -> tuple[list[str], dict[Split, Files]]:
    train = folder / "train"
    test = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if test is None and not train.is_dir():
        classes, files = listed(folder)
        held_out = [_held_out(file, folder) for file, _ in files]
        parted = list(zip(files, held_out, strict=True))
        return classes, {"train": [f for f, out in parted if not out], "test": [f for f, out in parted if out]}
    if test is None:
        raise MissingInput(f"data folder {folder} has train/ and neither test/ nor val/: add pictures to test on")
    classes, files = listed(test)
    if not train.is_dir():
        return classes, {"train": [], "test": files}
    learnt, training = listed(train)
    if learnt != classes:
        raise UsageError(f"data folder {folder}: {train.name}/ and {test.name}/ have different classes")
    return classes, {"train": training, "test": files}


def _held_out(file: str, folder: Path) -> bool:
    return int(hashlib.sha256(_within(file, folder).encode()).hexdigest(), 16) % 5 == 0


def _within(file: str, folder: Path) -> str:
    return Path(file).relative_to(folder).as_posix()
