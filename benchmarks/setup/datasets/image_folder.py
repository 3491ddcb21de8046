"""Folders of pictures, with one folder per class: what they contain, how they are split, and what is skipped."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.files import sha256
from lra.benchmarks.setup.datasets.labelled import SPLIT_NAMES, DataSet, Form, Split, no_training
from lra.benchmarks.setup.datasets.pictures import Files, decoded, surveyed

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of picture files, in lower or upper case: those that torchvision reads."""
LEFT_BEHIND = ("__macosx", "__pycache__", "@eadir", "lost+found", "thumbs.db", "desktop.ini")
"""Files that operating systems leave in folders, besides names that begin with a dot."""


@dataclass(frozen=True)
class Scan:
    """The content of a folder with one folder per class.

    Attributes:
        classes: names of the folders that have pictures, in the order of their characters, as in torchvision.
        files: all pictures, by class and path.
        passed: counts of everything else, by name or ending.
    """

    classes: list[str]
    files: Files
    passed: Counter[str]


@dataclass(frozen=True)
class _Found:
    classes: Sequence[str]
    files: dict[Split, Files]
    notes: list[str]


def image_folder(text: str, form: Form) -> DataSet:
    """A folder with ``train/CLASS/`` and ``test/CLASS/`` (or ``val/``), or with ``CLASS/`` alone.

    In the latter case a fifth is for testing: the pictures whose path in the folder has a hash divisible by five, so
    that each stays in its split when others are added. Pictures have one channel if all of them are grey, and their
    common size unless ``form`` has one.

    Raises:
        MissingInput: if the folder or its test split does not exist.
        UsageError: if it has another layout, or its pictures differ in size and ``form`` has none.
    """
    folder = Path(text)
    if not folder.is_dir():
        raise MissingInput(f"data folder {folder} does not exist: give imagefolder:DIR with a folder for each class")
    found = _found(folder)
    if len(found.classes) < 2:
        raise UsageError(
            f"data folder {folder} has only the class {found.classes[0]}: at least two are needed{_deeper(folder)}"
        )
    if not found.files["test"]:
        raise UsageError(f"data folder {folder} has too few pictures to hold out a fifth: make train/ and test/ in it")
    survey = surveyed(found.files["test"], found.files["train"], form)

    def files(split: Split) -> Files:
        if not found.files[split]:
            raise no_training(f"imagefolder:{text}", "put them into train/ beside test/")
        return found.files[split]

    @cache  # a sweep asks for each of its runs
    def content(split: Split) -> str:
        hashes = [(found.classes[label], sha256(Path(file))) for file, label in files(split)]
        whole = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
        return f"{whole} {form.fit}" if survey.distorted else whole

    return DataSet(
        f"imagefolder:{text}",
        survey.image,
        len(found.classes),
        lambda split: decoded(files(split), survey.image, form),
        content=content,
        names=tuple(found.classes),
        test_images=len(found.files["test"]),
        notes=(*found.notes, *survey.notes),
        reached=form.words(survey.distorted),
        fit=form.fit if survey.distorted else "",
    )


def _found(folder: Path) -> _Found:
    parts, beside = splits(folder)
    if not parts:
        found = scanned(folder)
        held_out = [_held_out(file, folder) for file, _ in found.files]
        parted = list(zip(found.files, held_out, strict=True))
        files: dict[Split, Files] = {
            "train": [f for f, out in parted if not out],
            "test": [f for f, out in parted if out],
        }
        return _Found(found.classes, files, _passed(folder, found.passed))
    tested = next((parts[name] for name in ("test", "val") if name in parts), None)
    if tested is None:
        raise MissingInput(
            f"data folder {folder} has {parts['train'].name}/ and neither test/ nor val/ with a folder for each class: "
            "add pictures to test on"
        )
    test = scanned(tested)
    train = scanned(parts["train"]) if "train" in parts else None
    if "test" in parts and "val" in parts:
        beside[f"{parts['val'].name}/"] += 1
    passed = test.passed + beside + (train.passed if train else Counter())
    used = {"train": parts.get("train"), "test": tested}
    # As they should be called, they need no words.
    odd = [f"{path.name}/ to {split}" for split, path in used.items() if path is not None and path.name != split]
    notes = [f"data folder {folder}: {' and '.join(odd)}" + (" on" if odd[-1].endswith("test") else "")] if odd else []
    notes += _passed(folder, passed)
    if train is None:
        return _Found(test.classes, {"train": [], "test": test.files}, notes)
    return _matched(folder, train, test, notes)


def _matched(folder: Path, train: Scan, test: Scan, notes: list[str]) -> _Found:
    """Both splits with the classes of the training split, even if the test split lacks some."""
    places = {name: place for place, name in enumerate(train.classes)}
    folded = {name.casefold(): name for name in train.classes}
    learnt = {name: name if name in places else folded.get(name.casefold()) for name in test.classes}
    strange = [name for name, known in learnt.items() if known is None]
    twice = [known for known, times in Counter(learnt.values()).items() if times > 1]
    if strange or twice:
        raise UsageError(
            f"data folder {folder}: the splits have different classes: {', '.join(map(str, strange or twice))}"
            + (" is in the test split only" if strange else " is written in two ways in one split")
        )
    renamed = [f"{name} is {known}" for name, known in learnt.items() if name != known]
    absent = [name for name in train.classes if name not in learnt.values()]
    notes = [
        *notes,
        *([f"data folder {folder}, its test split: {', '.join(renamed)}"] if renamed else []),
        *([f"data folder {folder} has nothing to test on of the class {_some(absent)}"] if absent else []),
    ]
    files = [(file, places[str(learnt[test.classes[label]])]) for file, label in test.files]
    return _Found(train.classes, {"train": train.files, "test": files}, notes)


def _passed(folder: Path, passed: Counter[str]) -> list[str]:
    return [f"data folder {folder}: passed over {listing(passed)}"] if passed else []


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _deeper(folder: Path) -> str:
    """A hint where the classes may be instead, if an archive was unpacked into a folder of its own."""
    inner = [path for path in folder.iterdir() if path.is_dir() and splits(path)[0]]
    return f"; did you mean imagefolder:{inner[0]}?" if inner else ""


def _held_out(file: str, folder: Path) -> bool:
    within = Path(file).relative_to(folder).as_posix()
    return int(hashlib.sha256(within.encode()).hexdigest(), 16) % 5 == 0


def scanned(folder: Path) -> Scan:
    """The pictures in the folders of ``folder``, at any depth.

    Raises:
        UsageError: if there are none.
    """
    passed: Counter[str] = Counter()
    found = {inner.name: _pictures(inner, passed) for inner in _folders(folder, passed)}
    for path in folder.iterdir():
        if path.is_file():
            passed[_label(path.name)] += 1
    passed.update(f"{name}/, empty of pictures" for name, files in found.items() if not files)
    classes = sorted(name for name, files in found.items() if files)
    if not classes:
        beside = f"; there is {listing(passed)}" if passed else ""
        raise UsageError(f"data folder {folder} has no folder of pictures for each class{beside}")
    files = [(file, label) for label, name in enumerate(classes) for file in found[name]]
    return Scan(classes, files, passed)


def splits(folder: Path) -> tuple[dict[Literal["train", "test", "val"], Path], Counter[str]]:
    """The folders in ``folder`` that are named as splits and contain folders, and what lies beside them.

    Raises:
        UsageError: if two are named as the same split.
    """
    found: dict[Literal["train", "test", "val"], Path] = {}
    beside: Counter[str] = Counter()
    for inner in _folders(folder, beside):
        split = SPLIT_NAMES.get(inner.name.lower())
        if split is None or next(_folders(inner, Counter()), None) is None:
            beside[f"{inner.name}/"] += 1
        elif split in found:
            raise UsageError(
                f"data folder {folder} has {found[split].name}/ and {inner.name}/ for {split}: leave one of them"
            )
        else:
            found[split] = inner
    return found, beside


def listing(passed: Counter[str], most: int = 8) -> str:
    """What was skipped, most frequent first."""
    parts = [name if count == 1 else f"{count:,} {name}" for name, count in passed.most_common(most)]
    return ", ".join(parts) + (f" and {len(passed) - most} kinds more" if len(passed) > most else "")


def hidden(name: str) -> bool:
    """Whether a file or folder belongs to the operating system."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def _folders(folder: Path, passed: Counter[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if hidden(path.name):
                passed[f"{path.name}/"] += 1
            else:
                yield path


def _pictures(folder: Path, passed: Counter[str]) -> list[str]:
    """Every picture in a folder and its subfolders; links are followed, and each folder is entered once."""
    found, entered = [], set()
    for place, inner, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            inner.clear()
            continue
        entered.add(real)
        passed.update(f"{name}/" for name in inner if hidden(name))
        inner[:] = sorted(name for name in inner if not hidden(name))
        for name in sorted(files):
            path = os.path.join(place, name)
            if hidden(name) or not name.lower().endswith(ENDINGS):
                passed[_label(name)] += 1
            elif not os.path.isfile(path):
                passed["broken link"] += 1
            else:
                found.append(path)
    return found


def _label(name: str) -> str:
    """A file's name if that identifies it, or its ending."""
    ending = os.path.splitext(name)[1].lower()
    if name.startswith("._"):
        return "._*"
    return name if hidden(name) or not ending else f"*{ending}"
