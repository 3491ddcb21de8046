"""Ctrl-C and SIGTERM as requests to stop at the next rest."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from lra.benchmarks.errors import Resumable
from lra.benchmarks.runs.run_folder import RunFolder

STDERR = 2
"""Its file descriptor."""


class Interrupted(Resumable):
    """A signal stopped the run; its state is saved, unless a plugin has none to save."""

    def __init__(self, number: int, folder: RunFolder, forgetful: Sequence[str] = ()):
        how = f"begin again, for want of a state_dict of plugin {forgetful[0]!r}," if forgetful else "go on"
        super().__init__(f"stopped; {how} with lra-bench resume {folder.path}")
        self.code = 130 if number == signal.SIGINT else 75  # type: ignore[misc]


@contextmanager
def interrupts(stop: Callable[[], None] = lambda: None) -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM and call ``stop``; a second one stops at once."""
    caught: list[int] = []

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
