"""Errors that end a command, each with one line and an exit code.

An error on the user's side names the thing, the value and the remedy. Ctrl-C and SIGTERM are requests to stop: between
experiences, or at the end of a step if an experience takes long.
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
    """The paths of the options, if any, that are wrong or wrong in combination, such as ``student.lr``."""


class UsageError(LraError):
    """A wrong option, key, value or combination."""

    code = 2


class MissingInput(LraError):
    """A required file, folder or package is missing."""

    code = 3


class Resumable(LraError):
    """The run stopped, and can be resumed."""

    code = 75


@contextmanager
def concerning(what: str) -> Iterator[None]:
    """A context that prefixes error lines with their subject, such as a file."""
    try:
        yield
    except LraError as error:
        error.args = (f"{what}: {error}",)
        raise


def one_line(error: BaseException, most: int = 200) -> str:
    """The message of an exception as one line, of at most ``most`` characters."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:most]


ALIKE = 0.6
"""Fraction of letters in common from which a name counts as a misspelling of another."""
FEW = 12
"""Number of names that can be listed in a line."""


def suggestion(wrong: str, known: Iterable[str], see: str = "") -> str:
    """A suggestion for an unknown name: a similar one, those it begins, all if they are few, or where they are listed.

    Args:
        wrong: the name given.
        known: the names that exist.
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
"""Torch's messages on insufficient memory, on different devices."""
SINGLE = "Expected more than 1 value per channel"
"""The message of torch's BatchNorm for a batch of one."""


@contextmanager
def in_one_line() -> Iterator[None]:
    """A context that adds a remedy to torch's and Python's errors on insufficient memory and batches of one.

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
                "BatchNorm cannot normalise over a single image: set schedule.batch_size to at least 2, and also "
                "synthesis.images of a method that has it"
            ) from None
        raise


STDERR = 2
"""The file descriptor of standard error."""
PATIENCE = 2.0
"""Seconds after a signal within which an experience may end; a longer one is abandoned."""


class Interrupted(Resumable):
    """A signal stopped the work: exit code 130 for Ctrl-C, for others the code of a resumable run.

    Args:
        number: of the signal.
        remedy: how to continue.
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
    """The current experience ends here. It is not an ``Exception``, so that no handler, in a plugin say, catches it."""


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
        may: whether only the current experience would be lost.
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
