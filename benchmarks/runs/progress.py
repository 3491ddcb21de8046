"""How a run is getting on, and the log of it.

Experiences, the step in the one that is open, the last evaluation, the time left.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lra.benchmarks.progress import Progress, at_steps
from lra.benchmarks.text import quantity_text
from lra.metrics.quantities import FOLLOWED, at, quantities

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lra.benchmarks.setup.experiment import Experiment

log = logging.getLogger("lra")


class RunProgress:
    """Progress over the experiences of a run.

    The time left is estimated from past experiences, except the first of a process, in which much is done once.
    Within an experience it is the fraction of its optimisers' steps: a batch synthesised for minutes advances it too.

    Args:
        experiment: what is run.
        quiet: print nothing on stderr.
    """

    def __init__(self, experiment: Experiment, quiet: bool = False):
        self.stream, self.strategy = experiment.stream, experiment.strategy
        self.quiet = quiet
        self.student_steps = experiment.config.schedule.student_steps
        self.last = ""
        self.display: Progress | None = None

    def begin(self) -> AbstractContextManager[None]:
        """Show where it is, and watch the steps."""
        self.display = Progress(self.stream.length, "experiences", quiet=self.quiet, done=self.stream.position)
        self.generator = self.student = self.count = 0
        self.before = self.strategy.clock.train_iterations
        self.first, self.others = 0.0, 0.0
        self.opened = time.monotonic()
        self.first_steps = self.expected = self._steps(self.stream.position)
        self.display.show(self.stream.position, self.last)
        return at_steps(self._step)

    def advance(self, position: int) -> None:
        """Say that ``position`` experiences are done."""
        if self.display is None:
            return
        now, steps = time.monotonic(), self.generator + self.student
        spent, self.opened = now - self.opened, now
        planned = self._steps(position)
        if not self.first:
            self.first, self.expected = spent, planned
        else:
            self.others += spent
            self.count += 1
            # More than planned, if a plugin has an optimiser of its own.
            self.expected = max(steps, planned)
        self.generator = self.student = 0
        self.before = self.strategy.clock.train_iterations
        if self.display.due():
            self._show(position, f"student step {self.before:,}/{self.student_steps:,}")
        self.display.done = position

    def note(self, record: dict[str, Any]) -> None:
        """An evaluation's record, shown beside the rest and kept in the log."""
        found = ((quantity, at(record, quantity.record)) for quantity in quantities(*FOLLOWED))
        told = (f"{quantity.name} {quantity_text(quantity, value)}" for quantity, value in found if value is not None)
        self.last = "  ".join(told)
        log.debug("student step %d: %s", record["student_step"], self.last)

    def close(self) -> None:
        """No more."""
        if self.display is not None:
            self.display.close(self.last)

    def _steps(self, index: int) -> int:
        """Steps of all optimisers in the experience ``index``."""
        return self.stream.synthesizer.updates(index) + self.stream.steps

    def _step(self, optimiser: Optimizer) -> None:
        own = optimiser is self.strategy.optimizer
        self.student += own
        self.generator += not own
        if self.display is not None and self.display.due():
            if own:
                where = f"student step {self.before + self.student:,}/{self.student_steps:,}"
            else:
                planned = self.expected - self.stream.steps
                of = f"/{planned:,}" if self.generator <= planned else ""
                where = f"generator step {self.generator:,}{of}"
            self._show(self.stream.position, where)

    def _show(self, position: int, where: str) -> None:
        assert self.display is not None
        share = min((self.generator + self.student) / self.expected, 1.0)
        spent, rest = time.monotonic() - self.opened, self.stream.length - position
        left = None
        if self.count:
            left = self.others / self.count * (rest - share)
        elif self.first:
            left = self.first * self.expected / self.first_steps * (rest - share)
        elif share:
            whole = spent / share
            left = whole - spent + whole * self._steps(position + 1) / self.expected * (rest - 1)
        self.display.show(position + share, where, self.last, left=left)


class Journal(MemoryHandler):
    """Keeps log messages from before the run has a folder, such as while its teacher is trained."""

    def __init__(self) -> None:
        super().__init__(capacity=1000, flushLevel=logging.CRITICAL + 1)

    @contextmanager
    def into(self, file: Path) -> Iterator[None]:
        """Write the messages so far into ``file``, and all later ones."""
        target = _Patient(file)
        target.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.setTarget(target)
        self.flush()
        log.addHandler(target)
        log.removeHandler(self)
        try:
            yield
        finally:
            log.removeHandler(target)
            target.close()


@contextmanager
def journal() -> Iterator[Journal]:
    """Listen to everything; until `Journal.into` it is only kept."""
    kept, level = Journal(), log.level
    handlers: list[logging.Handler] = [kept]
    if not any(isinstance(handler, _Terminal) for handler in log.handlers):  # Of tasks, which are runs, one has it.
        handlers.append(_Terminal(sys.stderr))
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield kept
    finally:
        log.setLevel(level)
        for handler in handlers:
            log.removeHandler(handler)
        kept.setTarget(None)
        kept.close()


class _Terminal(logging.StreamHandler):  # type: ignore[type-arg]
    """Warnings on a terminal."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self.setFormatter(logging.Formatter("lra-bench: %(message)s"))
        self.setLevel(logging.WARNING)


class _Patient(logging.FileHandler):
    """A log file that falls silent when the disk is full, instead of printing an error for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line."""
