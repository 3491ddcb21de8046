"""What ends a command otherwise than well, in one line and with an exit code.

What goes wrong on a user's side names the thing, the value and the remedy. Ctrl-C and SIGTERM are requests to stop: at
the next rest, or at the end of a step where that is long in coming.
"""

import difflib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import ClassVar

from lra.benchmarks.progress import at_steps


class LraError(Exception):
    """The run failed."""

    code: ClassVar[int] = 1
    options: tuple[str, ...] = ()
    """The paths of the options that are wrong, such as ``student.lr``, or wrong together, if some are."""


class UsageError(LraError):
    """A wrong option, key, value or combination."""

    code = 2


class MissingInput(LraError):
    """A file, folder or package that is needed is not there."""

    code = 3


class Resumable(LraError):
    """The run stopped, and can be resumed."""

    code = 75


@contextmanager
def concerning(what: str) -> Iterator[None]:
    """Begin the line on anything wrong with what it is about, such as a file."""
    try:
        yield
    except LraError as error:
        error.args = (f"{what}: {error}",)
        raise


def one_line(error: BaseException, most: int = 200) -> str:
    """What an exception says, as one line of so many characters at most."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:most]


ALIKE = 0.6
"""Share of letters in common from which one name may have been meant by another."""
FEW = 12
"""Names that can be listed in a line."""


def suggestion(wrong: str, known: Iterable[str], see: str = "") -> str:
    """What to say of an unknown name: the known one it is like, those it begins, all of few, or where they are listed.

    Args:
        wrong: what was given.
        known: what there is.
        see: where they are listed, such as ``lra-bench list presets``.
    """
    names = list(known)
    close = difflib.get_close_matches(wrong.lower(), names, n=1, cutoff=ALIKE)
    begun = [name for name in names if len(wrong) > 2 and name.startswith(wrong.lower())]
    if begun and not set(close) & set(begun):
        return f"did you mean {' or '.join(map(repr, begun[:4]))}?"
    if close:
        return f"did you mean {close[0]!r}?"
    if len(names) <= FEW or not see:
        return f"choose from {', '.join(names)}"
    return f"see {see}"


NO_MEMORY = ("allocate", "out of memory", "ALLOC_FAILED", "Storage size calculation overflowed")
"""What torch says, on one device or another, where memory does not suffice."""
SINGLE = "Expected more than 1 value per channel"
"""What torch's BatchNorm says to a batch of one."""


@contextmanager
def in_one_line() -> Iterator[None]:
    """Say with a remedy what torch, or Python, says of memory that does not suffice and of batches of one.

    Raises:
        LraError: if there is not enough memory.
        UsageError: if a network with BatchNorm is to learn from a single image.
    """
    try:
        yield
    except LraError:
        raise
    except (MemoryError, RuntimeError, ValueError) as error:
        said = one_line(error, most=10_000)
        if isinstance(error, MemoryError) or any(sign in said for sign in NO_MEMORY):
            raise LraError(
                f"there is not enough memory ({said[:200]}): lower what is large, such as schedule.batch_size, "
                "data.size or what is replayed"
            ) from None
        if SINGLE in said:
            raise UsageError(
                "BatchNorm has nothing to normalise in a single image: give 2 at least as schedule.batch_size, and as "
                "synthesis.images of a method that has it"
            ) from None
        raise


STDERR = 2
"""The file descriptor of standard error."""
PATIENCE = 2.0
"""Seconds from a signal in which an experience may come to its end; a longer one is given up."""


class Interrupted(Resumable):
    """A signal stopped the work: 130 of Ctrl-C, and of others the code of what can be resumed.

    Args:
        number: of the signal.
        remedy: how to go on.
    """

    def __init__(self, number: int, remedy: str):
        super().__init__(f"stopped; {remedy}")
        if number == signal.SIGINT:
            self.code = 130  # type: ignore[misc]


class AtOnce(Interrupted):
    """Ctrl-C that did not wait.

    Args:
        remedy: how to go on.
    """

    def __init__(self, remedy: str):
        super().__init__(signal.SIGINT, remedy)
        self.args = (f"stopped at once; {remedy}",)


class GivenUp(BaseException):
    """The open experience ends here. No ``except Exception`` on the way, of a plugin say, is to keep this."""


@contextmanager
def interrupts(stop: Callable[[], None] = lambda: None) -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM and call ``stop``; a second one stops at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # where signals do not come
        yield caught
        return

    def catch(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        # Not print: the signal may have come in the middle of one.
        with suppress(OSError):
            os.write(STDERR, b"lra-bench: stopping as soon as all can be saved; once more stops at once\n")
        stop()

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def at_a_step(caught: Sequence[int], may: Callable[[], bool]) -> Iterator[None]:
    """Raise `GivenUp` when an optimiser's step is done, the student's or synthesis', `PATIENCE` after a signal.

    Args:
        caught: signals so far, of `interrupts`.
        may: whether nothing but the open experience would be lost.
    """
    since: list[float] = []

    def look(optimiser: object) -> None:
        if not caught:
            return
        if not since:
            since.append(time.monotonic())
        if time.monotonic() - since[0] >= PATIENCE and may():
            raise GivenUp

    with at_steps(look):
        yield
