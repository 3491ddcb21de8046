"""The progress of a sweep on stderr: a live table on a terminal, elsewhere lines at a steady pace."""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lra.benchmarks.progress import Pace, clock, drawable, tell
from lra.benchmarks.records import by_place, value
from lra.benchmarks.sweeps.sweep import Entry
from lra.benchmarks.text import quantity_text
from lra.metrics.quantities import FOLLOWED, quantities

REFRESH = 1.0
"""Seconds between redraws of the table."""


class SweepProgress:
    """A line for each run that ended and, between them or beneath as a table, the runs in progress.

    Args:
        total: runs of the sweep.
    """

    def __init__(self, total: int):
        self.total = total
        self.count = 0
        self.live = drawable()
        self.drawn = 0
        self.last = 0.0
        self.pace: Pace | None = None
        self.begun: dict[int, int] = {}
        self.said: dict[int, str] = {}

    def ended(self, entry: Entry) -> None:
        """Write the line of a run that ended."""
        self.count += 1
        self._erase()
        tell(f"{self.count}/{self.total}  {entry.label}  {_what(entry)}")

    def show(self, entries: Sequence[Entry], running: Sequence[int]) -> None:
        """Show the state again, if it is time to."""
        if self.pace is None:
            self.pace = Pace()
            waiting = [(i, entry) for i, entry in enumerate(entries) if entry.status == "waiting"]
            self.begun = {i: _steps(entry) for i, entry in waiting}
            self.said = {i: _said(entry) for i, entry in waiting}
        if not self.live:
            if running and self.pace.due():
                for line in [self._summary(entries, len(running)), *(f"  {self._now(i, entries[i])}" for i in running)]:
                    tell(line)
                self.pace.step()
            return
        if running and time.monotonic() - self.last < REFRESH:
            return
        self.last = time.monotonic()
        width = shutil.get_terminal_size().columns
        lines = [self._line(i, entries[i]) for i in running]
        lines += [self._summary(entries, len(running))] if running else []
        self._erase()
        sys.stderr.write("".join(line[: width - 1] + "\n" for line in lines))
        sys.stderr.flush()
        self.drawn = len(lines)

    def _summary(self, entries: Sequence[Entry], running: int) -> str:
        counts = Counter(entry.status for entry in entries)
        left = counts["waiting"]
        text = f"{self.count} of {self.total} ended, {running} running, {left - running} waiting"
        if counts["failed"]:
            text += f", {counts['failed']} failed"
        done, rest = self._work(entries)
        if done and self.pace is not None:
            text += f", about {clock((time.monotonic() - self.pace.started) / done * rest)} left"
        return text

    def _work(self, entries: Sequence[Entry]) -> tuple[int, int]:
        """Student steps taken since the sweep began, and still to take; runs that failed or stopped do not count."""
        done = rest = 0
        for index, begun in self.begun.items():
            entry = entries[index]
            if entry.status in ("waiting", "done"):
                at = entry.config.student_steps if entry.status == "done" else _steps(entry)
                done, rest = done + at - begun, rest + entry.config.student_steps - at
        return done, rest

    def _now(self, index: int, entry: Entry) -> str:
        """A run in progress, and what it last said; what it said before the sweep began, it said in another try."""
        said = _said(entry)
        return f"{entry.label}  {said if said and said != self.said.get(index) else 'starting'}"

    def _line(self, index: int, entry: Entry) -> str:
        steps = entry.config.student_steps
        record = last_record(entry.folder.path / "metrics.jsonl") if entry.folder else {}
        if not record:
            return f"  {self._now(index, entry)}"
        at = int(record.get("student_step") or 0)
        filled = round(20 * at / steps)
        parts = (f"{name} {record[name]:.2f}" for name in ("accuracy", "forgetting") if record.get(name) is not None)
        return f"  [{'#' * filled}{'.' * (20 - filled)}] {at:,}/{steps:,}  {entry.label}  {'  '.join(parts)}"

    def _erase(self) -> None:
        if self.drawn:
            sys.stderr.write(f"\x1b[{self.drawn}A\x1b[J")
            self.drawn = 0


def _what(entry: Entry) -> str:
    if entry.status == "failed":
        return f"failed: {entry.reason}"
    result = entry.folder.result if entry.folder and entry.status != "stopped" else None
    if not result:
        return entry.status
    values = ((quantity, value(by_place(result), quantity)) for quantity in quantities(*FOLLOWED))
    found = [f"{quantity.name} {quantity_text(quantity, known)}" for quantity, known in values if known is not None]
    return f"{entry.status}: {', '.join([*found[:1], clock(result['cost']['seconds'])])}"


def _steps(entry: Entry) -> int:
    """Student steps that a run has recorded."""
    record = last_record(entry.folder.path / "metrics.jsonl") if entry.folder else {}
    return int(record.get("student_step") or 0)


def _said(entry: Entry) -> str:
    """The last line of a run's log, which is also written between evaluations."""
    return last_line(entry.folder.path / "log.txt") if entry.folder else ""


def last_record(file: Path) -> dict[str, float | None]:
    """The last whole record of a metrics file, read from its end; empty if there is none."""
    try:
        found = json.loads(_last(file) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def last_line(file: Path) -> str:
    """The last whole line of a log, without the time at its beginning; empty if there is none."""
    _, _, line = _last(file).decode(errors="replace")[:300].partition(",")
    return "".join(c if c.isprintable() else " " for c in line.partition(" ")[2])


def _last(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 65536))
            lines = stream.read().split(b"\n")
    except OSError:
        return b""
    return lines[-2] if len(lines) > 1 else b""
