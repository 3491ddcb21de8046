"""What a run says of itself: all of it in ``log.txt``, warnings on stderr as well."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

log = logging.getLogger("lra")


class Journal(MemoryHandler):
    """Keeps what is said before the run has a folder, such as while its teacher is trained."""

    def __init__(self) -> None:
        super().__init__(capacity=1000, flushLevel=logging.CRITICAL + 1)

    @contextmanager
    def into(self, file: Path) -> Iterator[None]:
        """Write what was said so far into ``file``, and all that will be."""
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
    kept, terminal, level = Journal(), logging.StreamHandler(sys.stderr), log.level
    terminal.setFormatter(logging.Formatter("lra-bench: %(message)s"))
    terminal.setLevel(logging.WARNING)
    for handler in (kept, terminal):
        log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield kept
    finally:
        log.setLevel(level)
        for handler in (kept, terminal):
            log.removeHandler(handler)
        kept.setTarget(None)
        kept.close()


class _Patient(logging.FileHandler):
    """A log file that a full disk makes silent, not noisy."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line."""
