"""Where the runs of a sweep are done. An engine takes jobs and gives outcomes; a job is one run folder's work.

Whatever happens to a worker, the folder keeps what was saved, so an engine that loses one starts its run again,
once, and the run goes on from its checkpoint.
"""

import os
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["done", "failed", "stopped"]


@dataclass(frozen=True)
class Job:
    """One run to do.

    Attributes:
        tree: its resolved configuration.
        out: parent of run folders.
        folder: its own.
        threads: that it may use, ``None`` if its networks are to say.
    """

    tree: dict[str, Any]
    out: str
    folder: str
    threads: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        index: of the job.
        status: "stopped" if it can be resumed.
        reason: of a failure, in one line.
    """

    index: int
    status: Status
    reason: str = ""


class Engine(Protocol):
    """Does jobs, several at a time."""

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome | None]:
        """Do the jobs; give outcomes as they come, and ``None`` now and then while there are none."""
        ...

    def running(self) -> list[int]:
        """Indices of the jobs in progress, as far as the engine knows."""
        ...

    def stop(self) -> None:
        """Let the jobs in progress save themselves; nothing new is started and `outcomes` ends soon after."""
        ...

    def close(self) -> None:
        """End all workers at once."""
        ...


def work(job: Job) -> tuple[Status, str]:
    """Do one job in this process: what every engine's workers call."""
    if job.threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(job.threads))
    # Avalanche's dependencies warn at import about optional solvers.
    warnings.filterwarnings("ignore", module="qpsolvers")
    from lra.benchmarks.errors import LraError, Resumable
    from lra.benchmarks.runs.kind import DEFAULT, kind_named
    from lra.benchmarks.runs.runner import run

    try:
        config = kind_named(job.tree.get("kind", DEFAULT)).trusted(job.tree | {"threads": job.threads})
        run(config, Path(job.out), quiet=True, at=Path(job.folder))
    except Resumable as error:
        return "stopped", str(error)
    except LraError as error:
        return "failed", str(error)
    except Exception as error:
        return "failed", _explained(error, Path(job.folder))
    return "done", ""


def _explained(error: Exception, folder: Path) -> str:
    """One line on an unforeseen error, whose traceback goes into the run folder."""
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc())
    except OSError:
        return line
    return f"{line} (see {folder / 'error.txt'})"
