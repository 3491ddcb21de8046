"""Writing files so that a reader, or a crash, finds the old one or the new one and nothing between."""

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lra.benchmarks.errors import LraError, UsageError


class CannotWrite(UsageError):
    """A file that cannot be written, because of permissions or for want of room; what was there before is kept."""


POLL = 0.2
"""Seconds between looks at a lock that is waited for."""
DRAFT = ".draft"
"""How temporary files end; a killed process may leave some behind, see `clear_drafts`."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object], before: Path | None = None) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in its place.

    Args:
        path: the file to be.
        write: fills it.
        before: where the file that was there goes, instead of being replaced.

    Raises:
        CannotWrite: if the disk is full or the folder cannot be written to; ``path`` is as it was then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=DRAFT, dir=path.parent)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}; choose another folder with --out") from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        if before is not None and path.exists():
            path.replace(before)
        temporary.replace(path)
        _settle(path.parent)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}; the file before it is kept") from None
    finally:
        temporary.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Put the names in ``folder`` on disk: until then a power cut may undo a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clear_drafts(folder: Path) -> None:
    """Delete what killed processes left half-written in ``folder``, which must be held."""
    for draft in folder.glob(f".*{DRAFT}"):
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as JSON, atomically; what JSON has no form for becomes text."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


@contextmanager
def held(
    lock: Path, busy: str = "", elsewhere: str = "--out", wait: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold the file ``lock`` against other processes, making it and its folder if need be.

    Args:
        lock: a file that nothing else uses.
        busy: what to say if another process holds it.
        elsewhere: what chooses another folder.
        wait: called now and then until it is free, in place of a refusal.

    Raises:
        LraError: saying ``busy``.
        UsageError: if the folder cannot be written to.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write to {lock.parent}: {error.strerror}; choose another with {elsewhere}") from None
    try:
        while not _taken(handle):
            if wait is None:
                raise LraError(busy)
            wait()
            time.sleep(POLL)
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    """Whether a lock is ours from now on."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def plain_name(label: str) -> str:
    """The last 120 characters of ``label``, as a file's name: what could mean something in a path becomes a dash."""
    return "".join(c if c.isalnum() or c in "+-_." else "-" for c in label)[-120:]


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
