"""Files: written atomically, so that a reader, or a crash, finds the old one or the new one; read as data only.

Untrusted files are read without running anything in them, and only as far as they fit. A checkpoint is a line that
names its format, the SHA-256 of the rest, and the rest: the output of ``torch.save`` for plain states. torch itself
would not notice a flipped bit among the weights. The checkpoint before the last is kept beside it.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import BadZipFile, ZipFile, is_zipfile

import yaml

from lra.benchmarks.errors import LraError, UsageError, one_line

if TYPE_CHECKING:
    from lra.state import State


class CannotWrite(UsageError):
    """A file that cannot be written, because of permissions or lack of space; the previous one is kept."""


POLL = 0.2
"""Seconds between attempts to take a lock."""
DRAFT = ".draft"
"""The ending of temporary files; a killed process may leave some behind, see `clear_drafts`."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object], before: Path | None = None) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in its place.

    Args:
        path: the file to be written.
        write: fills it.
        before: where the previous file is moved, instead of being replaced.

    Raises:
        CannotWrite: if the disk is full or the folder cannot be written to; ``path`` is then unchanged.
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
    """Delete what killed processes left half-written in ``folder``, which must be locked."""
    for draft in folder.glob(f".*{DRAFT}"):
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as JSON, atomically; values that JSON cannot represent become text."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


@contextmanager
def held(
    lock: Path, busy: str = "", elsewhere: str = "--out", wait: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold the file ``lock`` against other processes, creating it and its folder if needed.

    Args:
        lock: a file that nothing else uses.
        busy: the message if another process holds it.
        elsewhere: the option that chooses another folder.
        wait: called repeatedly until it is free, instead of refusing.

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
        looked = False
        while not _taken(handle):
            if wait is not None:
                wait()
            elif looked:
                raise LraError(busy)
            looked = True  # Who only asks, as `is_held` does, has it for a moment.
            time.sleep(POLL)
        yield
    finally:
        os.close(handle)


def is_held(lock: Path) -> bool:
    """Whether a process holds the file ``lock``; nothing is created."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _taken(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _taken(handle: int, how: int = fcntl.LOCK_EX) -> bool:
    """Whether a lock is ours from now on."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def plain_name(label: str) -> str:
    """The last 120 characters of ``label`` as a file name: characters with a meaning in paths become dashes."""
    return "".join(c if c.isalnum() or c in "+-_." else "-" for c in label)[-120:]


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


NODES = 200_000
"""Most values in a YAML text, each counted as often as aliases repeat it."""
UNPACKED = 2**30
"""Bytes that an archive may always unpack to."""
SWELLING = 200
"""How many times its own size an archive may unpack to beyond that; photographs reach 2, blank images 1000."""


class NotPlain(ValueError):
    """A text that is not plain YAML; the message says why in one line."""


class _Plain(yaml.SafeLoader):
    """YAML's safe loader, except that a duplicate key is an error, as YAML specifies, and not lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise NotPlain(f"line {key.start_mark.line + 1} gives {key.value!r} a second time")
            seen.add((key.tag, key.value))
        return node


def parse_yaml(text: str) -> Any:
    """The data in a YAML text; tags that would make objects are errors.

    Raises:
        NotPlain: if it is not YAML, nested too deeply, or too large because of aliases.
    """
    try:
        tree = yaml.load(text, _Plain)
    except RecursionError:
        raise NotPlain("it is nested too deeply") from None
    # Odd scalars (a 13th month, an empty !!int) make the safe loader raise anything.
    except Exception as error:
        raise NotPlain(one_line(error) or "it cannot be read") from None
    left = NODES
    open_nodes = [tree]
    while open_nodes:
        node = open_nodes.pop()
        left -= 1
        if left < len(open_nodes):
            raise NotPlain(f"it holds more than {NODES:,} values; aliases repeat them")
        if isinstance(node, dict):
            open_nodes += [*node.keys(), *node.values()]
        elif isinstance(node, list | tuple | set):
            open_nodes += node
    return tree


def refuse_zip_bomb(path: Path) -> None:
    """Raise `UsageError` for an archive that unpacks to far more than its size suggests, or to an unknown size.

    Files that are not archives, or do not exist, are left to the reader.
    """
    try:
        if not is_zipfile(path):
            return
        with ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except OSError:
        return
    # zipfile raises NotImplementedError at what it cannot read; other readers, torch's for one, are content with less.
    except (BadZipFile, ValueError, NotImplementedError) as error:
        raise UsageError(f"{path} is an archive that cannot be read ({error}): save it again") from None
    if unpacked > max(UNPACKED, SWELLING * path.stat().st_size):
        raise UsageError(
            f"{path} unpacks from {path.stat().st_size:,} to {unpacked:,} bytes, which is refused: save it uncompressed"
        )


CHECKPOINT_SCHEMA = 1
"""Increased whenever older states can no longer be restored."""
HEADER = b"lra checkpoint "


class Unreadable(UsageError):
    """A checkpoint that cannot be used; the message says why in a few words."""


def packed(state: State) -> memoryview:
    """``state`` as it is now, independent of later changes to its tensors."""
    import torch

    content = io.BytesIO()
    torch.save(state, content)
    return content.getbuffer()


def write_checkpoint(path: Path, state: State | memoryview, before: Path | None = None) -> None:
    """Write ``state``, plain or `packed`, atomically; the previous file is moved to ``before``."""
    data = state if isinstance(state, memoryview) else packed(state)
    head = HEADER + b"%d\n" % CHECKPOINT_SCHEMA + hashlib.sha256(data).digest()
    write_atomically(path, lambda file: (file.write(head), file.write(data)), before)


def read_checkpoint(path: Path) -> State:
    """The state in a file, without running anything in it.

    Raises:
        Unreadable: if it is truncated, changed, of another version, or not a checkpoint.
        UsageError: if it would unpack to far more than its size suggests.
    """
    import torch

    try:
        with path.open("rb") as file:
            head, digest, data = file.readline(40), file.read(32), file.read()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    if not head.startswith(HEADER):
        raise Unreadable("is damaged, or not a checkpoint")
    if head != HEADER + b"%d\n" % CHECKPOINT_SCHEMA:
        raise Unreadable("was written by another version")
    if hashlib.sha256(data).digest() != digest:
        raise Unreadable("is damaged")
    refuse_zip_bomb(path)
    try:
        state = torch.load(io.BytesIO(data), weights_only=True)
    # A stranger's file with a right checksum may make the restricted loader raise anything.
    except Exception as error:
        raise Unreadable(f"does not hold a state ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise Unreadable("does not hold a state")
    return state
