"""How a sweep is getting on, on stderr: a live table on a terminal, a line for each run elsewhere."""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lra.benchmarks.progress import clock
from lra.benchmarks.sweeps.sweep import Entry

REFRESH = 1.0
"""Seconds between redraws of the table."""


class SweepProgress:
    """Lines for the runs that ended, above a table of those in progress.

    Args:
        total: runs of the sweep.
    """

    def __init__(self, total: int):
        self.total = total
        self.count = 0
        self.live = sys.stderr.isatty()
        self.drawn = 0
        self.last = 0.0
        self.started = time.monotonic()
        self.fresh = 0

    def ended(self, entry: Entry) -> None:
        """Write the line of a run that ended."""
        self.count += 1
        self.fresh += entry.status != "finished before"
        self._erase()
        print(f"{self.count}/{self.total}  {entry.label}  {_what(entry)}", file=sys.stderr, flush=True)

    def show(self, entries: Sequence[Entry], running: Sequence[int]) -> None:
        """Redraw the table, on a terminal, if it is time to."""
        if not self.live or (running and time.monotonic() - self.last < REFRESH):
            return
        self.last = time.monotonic()
        width = shutil.get_terminal_size().columns
        lines = [_line(entries[i]) for i in running]
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
        if self.fresh:
            text += f", about {clock((time.monotonic() - self.started) / self.fresh * left)} left"
        return text

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
    accuracy = (result.get("accuracy") or {}).get("final")
    found = f"accuracy {accuracy:.2f} %" if accuracy is not None else f"agreement {result.get('agreement')}"
    return f"{entry.status}: {found}, {clock(result['cost']['seconds'])}"


def _line(entry: Entry) -> str:
    steps = entry.config.schedule.student_steps
    record = last_record(entry.folder.path / "metrics.jsonl") if entry.folder else {}
    at = int(record.get("student_step") or 0)
    filled = round(20 * at / steps)
    parts = (f"{name} {record[name]:.2f}" for name in ("accuracy", "forgetting") if record.get(name) is not None)
    return f"  [{'#' * filled}{'.' * (20 - filled)}] {at:,}/{steps:,}  {entry.label}  {'  '.join(parts)}"


def last_record(file: Path) -> dict[str, float | None]:
    """The last whole record of a metrics file, read from its end; empty if there is none."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 65536))
            lines = stream.read().split(b"\n")
        found = json.loads(lines[-2]) if len(lines) > 1 else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
