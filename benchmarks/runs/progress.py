"""How a run is getting on, on stderr: a bar on a terminal, a line now and then elsewhere."""

import logging
import sys
from typing import Any

from tqdm import tqdm

log = logging.getLogger("lra")


class Progress:
    """Progress over experiences.

    Args:
        length: experiences in all.
        quiet: say nothing on stderr.
    """

    def __init__(self, length: int, quiet: bool = False):
        self.length = length
        self.last = ""
        terminal = sys.stderr.isatty() and not quiet
        self.bar = tqdm(total=length, unit="exp", file=sys.stderr, disable=not terminal, dynamic_ncols=True)
        self.lines = not terminal and not quiet
        self.tenth = -1

    def advance(self, position: int) -> None:
        """So many experiences are done."""
        self.bar.update(position - self.bar.n)
        tenth = 10 * position // self.length
        if self.lines and tenth != self.tenth and self.last:
            self.tenth = tenth
            print(f"{position}/{self.length} experiences  {self.last}", file=sys.stderr, flush=True)

    def note(self, record: dict[str, Any]) -> None:
        """An evaluation's record, shown beside the bar and kept in the log."""
        wanted = (("accuracy", "%"), ("agreement", "%"), ("forgetting", " points"))
        self.last = "  ".join(
            f"{name} {record[name]:.2f}{unit}" for name, unit in wanted if record.get(name) is not None
        )
        self.bar.set_postfix_str(self.last, refresh=False)
        log.debug("student step %d: %s", record["student_step"], self.last)

    def close(self) -> None:
        """No more."""
        self.bar.close()
