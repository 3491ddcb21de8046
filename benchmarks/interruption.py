"""Ctrl-C and SIGTERM as requests to stop: at the next rest, or at the end of a step where that is long in coming."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from lra.benchmarks.errors import Resumable
from lra.benchmarks.progress import at_steps

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
