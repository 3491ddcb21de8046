"""Checkpoints on disk: states under a checksum, the one before the last kept beside it.

A file is a line that names its format, the SHA-256 of the rest, and the rest: what ``torch.save`` makes of plain
states. torch itself would not notice a flipped bit among the weights.
"""

import hashlib
import io
from pathlib import Path

import torch

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_atomically
from lra.benchmarks.untrusted import refuse_zip_bomb
from lra.state import State

SCHEMA = 1
"""Raised whenever older states can no longer be taken up."""
HEADER = b"lra checkpoint "


class Unreadable(UsageError):
    """A checkpoint that cannot be used; the message says why in a few words."""


def packed(state: State) -> memoryview:
    """``state`` as it is now, whatever becomes of its tensors."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getbuffer()


def write(path: Path, state: State | memoryview, before: Path | None = None) -> None:
    """Write ``state``, as it is or `packed`, atomically; the file that was there goes to ``before``."""
    data = state if isinstance(state, memoryview) else packed(state)
    head = HEADER + b"%d\n" % SCHEMA + hashlib.sha256(data).digest()
    write_atomically(path, lambda file: (file.write(head), file.write(data)), before)


def read(path: Path) -> State:
    """The state in a file, without running anything in it.

    Raises:
        Unreadable: if it is cut short, changed, of another version, or no checkpoint at all.
        UsageError: if it would unpack to far more than it seems to hold.
    """
    try:
        with path.open("rb") as file:
            head, digest, data = file.readline(40), file.read(32), file.read()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    if not head.startswith(HEADER):
        raise Unreadable("is damaged, or no checkpoint")
    if head != HEADER + b"%d\n" % SCHEMA:
        raise Unreadable("is of another version")
    if hashlib.sha256(data).digest() != digest:
        raise Unreadable("is damaged")
    refuse_zip_bomb(path)
    try:
        state = torch.load(io.BytesIO(data), weights_only=True)
    # A stranger's file with a right checksum may make the restricted loader raise anything.
    except Exception as error:
        raise Unreadable(f"holds what is no state ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise Unreadable("holds what is no state")
    return state
