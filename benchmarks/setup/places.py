"""Paths as users write them: named for what they are, and written so that they mean the same from any folder.

A relative path in a file counts from that file's folder if something is there, and from the working directory if not.
"""

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from lra.benchmarks.errors import UsageError

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
DRIVE = re.compile(r"([A-Za-z]):[\\/]|\\\\")

FILES = (("teacher", "file"), ("carry", "generator"), ("carry", "replay"))
"""Section and key of every option that is a file."""


def cache_root() -> Path:
    """What is kept for a user from run to run: ``$LRA_CACHE``, or his cache folder."""
    return Path(os.environ.get("LRA_CACHE") or user_cache_path("lra")).expanduser()


def local(text: str, key: str) -> Path:
    """A path as this machine writes it, with ``~`` expanded.

    Args:
        text: as typed.
        key: what it was typed for.

    Raises:
        UsageError: for a URL, and for a Windows path.
    """
    if Path(text).exists():
        return Path(text)
    if URL.match(text):
        raise UsageError(f"{key} {text!r} is a URL: fetch it, and give the path of what was fetched")
    if platform.system() != "Windows" and (drive := DRIVE.match(text)):
        here = f"/mnt/{(drive[1] or 'c').lower()}/{text[drive.end() :]}".replace("\\", "/")
        raise UsageError(
            f"{key} {text!r} is a Windows path and this is {platform.system()}: write it as it is called here"
            + (f", under WSL {here}" if drive[1] else "")
        )
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user
        return Path(text)


def placed(text: str, key: str, bases: Sequence[Path]) -> str:
    """A path, absolute: from the first of ``bases`` in which something is there, or else the first.

    Raises:
        UsageError: as `local`.
    """
    path = local(text, key)
    choices = [_whole(base, path) for base in bases]
    return str(next((choice for choice in choices if choice.exists()), choices[0]))


def placed_data(name: str, bases: Sequence[Path]) -> str:
    """The name of a data set, with the paths in it absolute.

    Raises:
        UsageError: for what is a path alone, or no path of this machine.
    """
    kind, colon, place = name.partition(":")
    if colon and kind in KINDS:
        return f"{kind}:{KINDS[kind](place, bases)}"
    path = Path(placed(name, "data set", bases))
    if path.exists() and (path.suffix or os.sep in name):
        written = f"npz:{name}" if path.is_file() else f"imagefolder:{name}"
        raise UsageError(f"data set {name!r} is a {'file' if path.is_file() else 'folder'}: write {written}")
    return name


def placed_layer(layer: Mapping[str, Any], bases: Sequence[Path]) -> dict[str, Any]:
    """A layer of a configuration, its sections written in full, with all paths in it absolute.

    Raises:
        UsageError: as `placed` and `placed_data`.
    """
    tree = dict(layer)
    for section, key in (("data", "name"), *FILES):
        options = tree.get(section)
        text = options.get(key) if isinstance(options, Mapping) else None
        if isinstance(options, Mapping) and isinstance(text, str):
            path = placed_data(text, bases) if section == "data" else placed(text, f"{section}.{key}", bases)
            tree[section] = {**options, key: path}
    code = tree.get("code")
    if isinstance(code, Mapping):
        tree["code"] = {k: placed(v, f"code.{k}", bases) if isinstance(v, str) else v for k, v in code.items()}
    return tree


def places_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration that say where something lies."""
    found = {f"{section}.{key}": (tree.get(section) or {}).get(key) for section, key in (("data", "name"), *FILES)}
    return found | {"code": tree.get("code")}


def train_and_test(text: str, bases: Sequence[Path] = (Path(),)) -> tuple[str, str]:
    """The files of ``TEST``, ``TRAIN,TEST`` or ``a-{split}.npz``; without one to train on, the first is empty.

    Names may have commas in them, if the files are there to tell where one ends.
    """
    if "{split}" in text:
        return text.replace("{split}", "train"), text.replace("{split}", "test")
    commas = [index for index, character in enumerate(text) if character == ","]
    readings = [("", text), *((text[:i], text[i + 1 :]) for i in reversed(commas))]

    def there(name: str) -> bool:
        return not name or any((base / Path(name).expanduser()).is_file() for base in bases)

    likely = readings[1] if commas else readings[0]
    try:
        whole = (reading for reading in readings if all(map(there, reading)))
        return next(whole, None) or next((reading for reading in readings if there(reading[1])), likely)
    except (OSError, ValueError, RuntimeError):  # a name that no file can have
        return likely


def data_label(name: str) -> str:
    """A short name of a data set for a folder's: of a user's own, what its file or folder is called."""
    kind, colon, place = name.partition(":")
    if not (colon and kind in KINDS):
        return name
    if kind == "imagefolder":
        return Path(place).name[-LABEL:] or kind
    stem = Path(train_and_test(place)[1]).stem if "{split}" not in place else Path(place.replace("{split}", "")).stem
    return stem.strip("-_. ")[-LABEL:] or kind


LABEL = 40
"""Characters of a label at most."""


def data_kind(name: str) -> str:
    """A data set's name without the place of a user's own, whose content says more than where it lies."""
    kind, colon, _ = name.partition(":")
    return kind if colon and kind in KINDS else name


def moved(tree: Mapping[str, Any]) -> str | None:
    """The option that says where something is now that a configuration names and that is not there, if any."""
    kind, _, place = str(tree["data"]["name"]).partition(":")
    if kind in KINDS and not all(Path(part).exists() for part in _parts(place)):
        return f"--dataset {kind}:NEW-PLACE"
    files = {f"{section}.{key}": (tree.get(section) or {}).get(key) for section, key in FILES}
    return next((f"--set {name}=NEW-PLACE" for name, file in files.items() if file and not Path(file).exists()), None)


def _parts(place: str) -> list[str]:
    return [place] if Path(place).exists() else [part for part in train_and_test(place) if part]


def _whole(base: Path, path: Path) -> Path:
    """Absolute and without detours, unless a symbolic link makes ``..`` mean something else."""
    joined = base.absolute() / path
    plain = Path(os.path.abspath(joined))
    try:
        return plain if plain.resolve() == joined.resolve() else joined.resolve()
    except (OSError, RuntimeError, ValueError):  # the system will say so where it is read
        return plain


def _arrays(text: str, bases: Sequence[Path]) -> str:
    if "{split}" in text:
        return placed(text, "data set", bases)
    parts = [placed(part, "data set", bases) for part in train_and_test(text, bases) if part]
    for part in parts:
        if Path(part).is_dir():
            raise UsageError(f"data set npz:{text}: {part} is a folder: write imagefolder:{part} for pictures")
    return ",".join(parts)


def _pictures(text: str, bases: Sequence[Path]) -> str:
    folder = placed(text, "data set", bases)
    if Path(folder).is_file():
        raise UsageError(f"data set imagefolder:{text} is a file: write npz:{text} for arrays, or name the folder")
    return folder


KINDS: dict[str, Callable[[str, Sequence[Path]], str]] = {"imagefolder": _pictures, "npz": _arrays}
"""What may stand before a colon and the place of a user's own data."""
