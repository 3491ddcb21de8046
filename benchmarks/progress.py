"""Progress on stderr: a bar on a terminal that has room for one, otherwise a line from time to time.

Lines are printed at once, after a second, and then at a steady pace, with the time left; they also go to the log,
whatever stderr is. Nothing here needs torch or a thread: whoever works reports progress, at no cost in between.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from torch.optim import Optimizer

FIRST = 1.0
"""Seconds until the second line; the first comes at once."""
PACE = 10.0
"""Seconds between all later ones."""
REDRAW = 0.1
"""Seconds between the states of a bar."""
ERASE = "\x1b[K"
"""The sequence at which a terminal clears the rest of a line."""

log = logging.getLogger("lra")


def drawable() -> bool:
    """Whether stderr is a terminal with columns, on which lines can be overwritten."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or os.environ.get("COLUMNS", "").strip() == "0":
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


def tell(line: str) -> None:
    """Print a line on stderr; if it is closed, work goes on."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


class Introduction:
    """Lines about a piece of work, held back until it is sure to begin, so that a refusal is a single line.

    Args:
        lines: to be printed.
        quiet: nothing on stderr, only in the log.
    """

    def __init__(self, *lines: str, quiet: bool = False):
        self.lines, self.quiet = list(lines), quiet

    def add(self, line: str) -> None:
        """Add a line, to be printed with the others, or when `say` is called again."""
        self.lines.append(line)

    def say(self) -> None:
        """Print the lines not yet printed."""
        for line in self.lines:
            log.info("%s", line)
            if not self.quiet:
                tell(line)
        self.lines.clear()


@contextmanager
def loading(*modules: str) -> Iterator[None]:
    """A context that shows which libraries are being loaded, since large ones take seconds."""
    missing = [module for module in modules if module not in sys.modules]
    passing = drawable()
    if missing:
        print(f"loading {' and '.join(missing)}", end="\r" if passing else "\n", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if missing and passing:
            print(ERASE, end="", file=sys.stderr, flush=True)


def clock(seconds: float, exact: bool = False) -> str:
    """Seconds in words, in round numbers or, for measurements, ``exact``."""
    if seconds < 120:
        return f"{seconds:.{int(exact)}f} s"
    if exact:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


class Pace:
    """Decides when the next line is due: at once, after `FIRST` seconds, then every `PACE`.

    Args:
        patient: leave out the first line.
    """

    def __init__(self, patient: bool = False) -> None:
        self.started = time.monotonic()
        self.next = self.started + (FIRST if patient else 0.0)

    def due(self) -> bool:
        """Whether a line is due."""
        return time.monotonic() >= self.next

    def step(self) -> None:
        """Note that a line was printed."""
        now = time.monotonic()
        self.next = now + (PACE if now >= self.started + FIRST else FIRST)


class Progress:
    """Progress of a piece of work that has parts.

    Args:
        total: number of parts.
        unit: what they are.
        what: what is done, unless the unit says it.
        quiet: nothing on stderr, only in the log.
        done: parts done before.
        patient: print nothing if all takes no longer than `FIRST` seconds.
    """

    def __init__(
        self, total: int, unit: str, what: str = "", quiet: bool = False, done: float = 0, patient: bool = False
    ):
        self.total, self.unit, self.what, self.quiet = total, unit, what, quiet
        self.begun = self.done = done
        self.said = ""
        self.pace = Pace(patient)
        self.bar: tqdm[None] | None = None
        self.next = self.pace.next

    def due(self) -> bool:
        """Whether `show` would do anything; cheap enough to call at every step."""
        return time.monotonic() >= self.next

    def show(self, done: float, *details: str, left: float | None = None) -> None:
        """Show the progress, if that is due.

        Args:
            done: parts done, including a fraction of the current one.
            details: further text.
            left: seconds left, if not simply in proportion to what is done.
        """
        if not self.due():
            self.done = done
            return
        self._write(self._text(done, details, left), self.pace.due())

    def close(self, *details: str) -> None:
        """End the progress; the last line says how it ended, unless it was printed already."""
        text = self._text(self.done, details, None, ended=True)
        if text != self.said and (self.said or self.due()):
            self._write(text, line=True)
        if self.bar is not None:
            self.bar.close()

    def clear(self) -> None:
        """Clear the bar, to make room for another line."""
        if self.bar is not None:
            self.bar.clear()

    def _text(self, done: float, details: tuple[str, ...], left: float | None, ended: bool = False) -> str:
        self.done = done
        since = time.monotonic() - self.pace.started
        if left is None and self.total > done > self.begun:
            left = since / (done - self.begun) * (self.total - done)
        place = f"{int(done)}/{self.total} {self.unit}"
        remaining = "" if left is None or ended else f"{clock(left)} left"
        return "  ".join(filter(None, [f"{self.what}: {place}" if self.what else place, *details, remaining]))

    def _write(self, text: str, line: bool) -> None:
        if self.bar is None and not self.quiet and drawable():
            form = "{percentage:3.0f}%|{bar}| {desc}"
            self.bar = tqdm(total=self.total, file=sys.stderr, dynamic_ncols=True, bar_format=form)
        if self.bar is not None:
            self.bar.n = self.done
            with suppress(OSError):
                self.bar.set_description_str(text)
        if line:
            self.said = text
            log.info("%s", text)
            if self.bar is None and not self.quiet:
                tell(text)
            self.pace.step()
        self.next = self.pace.next if self.bar is None else time.monotonic() + REDRAW


@contextmanager
def at_steps(do: Callable[["Optimizer"], None]) -> Iterator[None]:
    """A context that calls ``do`` with every optimiser after each of its steps."""
    # Whoever has an optimiser has torch.
    from torch.optim.optimizer import register_optimizer_step_post_hook

    hook = register_optimizer_step_post_hook(lambda optimiser, *arguments: do(optimiser))
    try:
        yield
    finally:
        hook.remove()
