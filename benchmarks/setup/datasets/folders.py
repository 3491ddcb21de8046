"""Folders of pictures, one folder a class: what is in them, and what of it is passed over."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.datasets.labelled import SPLIT_NAMES

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of picture files, in small or capital letters: those that torchvision reads."""
LEFT_BEHIND = ("__macosx", "__pycache__", "@eadir", "lost+found", "thumbs.db", "desktop.ini")
"""What systems leave in folders, beside names that begin with a dot."""

Files = Sequence[tuple[str, int]]
"""Picture files and their classes."""


@dataclass(frozen=True)
class Scan:
    """What a folder with a folder for each class holds.

    Attributes:
        classes: names of the folders that have pictures, in the order of their characters, as torchvision has them.
        files: all pictures, by class and path.
        passed: how often what else was met, by name or ending.
    """

    classes: list[str]
    files: Files
    passed: Counter[str]


def scanned(folder: Path) -> Scan:
    """The pictures in the folders of ``folder``, however deep.

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
    """The folders in ``folder`` that are splits by their names and have folders in them, and what lies beside them.

    Raises:
        UsageError: if two have names of the same split.
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
    """What was passed over, most frequent first."""
    parts = [name if count == 1 else f"{count:,} {name}" for name, count in passed.most_common(most)]
    return ", ".join(parts) + (f" and {len(passed) - most} kinds more" if len(passed) > most else "")


def hidden(name: str) -> bool:
    """Whether a file or folder is a system's and nobody's picture."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def _folders(folder: Path, passed: Counter[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if hidden(path.name):
                passed[f"{path.name}/"] += 1
            else:
                yield path


def _pictures(folder: Path, passed: Counter[str]) -> list[str]:
    """Every picture in a folder and those in it; links are followed, and a folder is entered once."""
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
    """A file's name where it says all, or its ending."""
    ending = os.path.splitext(name)[1].lower()
    if name.startswith("._"):
        return "._*"
    return name if hidden(name) or not ending else f"*{ending}"
