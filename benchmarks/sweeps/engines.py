"""Where the runs of a sweep are done: in processes on this machine, or on a cluster (`lra.benchmarks.sweeps.cluster`).

An engine takes jobs and gives outcomes; a job is one run folder's work. Whatever happens to a worker, the folder keeps
what was saved, so a lost run is started again and continues from its checkpoint.
"""

import multiprocessing
import os
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol

from lra.benchmarks.errors import one_line
from lra.benchmarks.setup.config import Identity

Status = Literal["done", "failed", "stopped"]

POLL = 0.5
"""Seconds that an engine waits for an outcome before it gives ``None``."""
LEAVE = 20.0
"""Seconds that an idle worker is given to exit."""


@dataclass(frozen=True)
class Job:
    """One run to do.

    Attributes:
        tree: its resolved configuration.
        out: parent of run folders.
        folder: its own.
        threads: number that it may use; ``None``: by the size of its networks.
        identity: what identifies it.
    """

    tree: dict[str, Any]
    out: str
    folder: str
    threads: int | None
    identity: Identity


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


def work(job: Job, wait: bool = False) -> tuple[Status, str]:
    """Do one job in this process, as workers of every engine do; return its status and, of a failure, the reason.

    Args:
        job: to do.
        wait: whether to wait for a process that holds the run's folder, such as a lost one that has not ended yet.
    """
    if job.threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(job.threads))
    # Avalanche's dependencies warn at import about optional solvers.
    warnings.filterwarnings("ignore", module="qpsolvers")
    from lra.benchmarks.errors import LraError, Resumable
    from lra.benchmarks.runs.kind import DEFAULT, kind_named
    from lra.benchmarks.runs.runner import run

    try:
        config = kind_named(job.tree.get("kind", DEFAULT)).trusted(job.tree)
        config = config.model_copy(update={"threads": job.threads})
        run(config, Path(job.out), quiet=True, at=Path(job.folder), wait=wait)
    except Resumable as error:
        return "stopped", str(error)
    except LraError as error:
        return "failed", str(error)
    except Exception as error:
        return "failed", _explained(error, Path(job.folder))
    return "done", ""


def _explained(error: Exception, folder: Path) -> str:
    """One line on an unexpected error, whose traceback goes into the run folder."""
    line = f"{type(error).__name__}: {one_line(error, most=300)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc())
    except OSError:
        return line
    return f"{line} (see {folder / 'error.txt'})"


class LocalEngine:
    """Processes on this machine, one job each at a time; a process that dies is replaced and its job resumed once.

    Args:
        workers: most processes at a time.
        cards: GPUs, as ``CUDA_VISIBLE_DEVICES`` names them, over which processes are spread; each sees one.
            If empty, all see what this process sees.
    """

    def __init__(self, workers: int, cards: Sequence[str] = ()):
        self.workers = workers
        self.cards = list(cards)
        self.pool: list[_Worker] = []
        self.stopping = False

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome | None]:
        """Do the jobs; see `Engine.outcomes`."""
        waiting = deque(range(len(jobs)))
        lost: set[int] = set()
        while waiting or self.running():
            self._feed(jobs, waiting)
            busy = {worker.pipe: worker for worker in self.pool if worker.job is not None}
            ready = wait(list(busy), timeout=POLL)
            for pipe in ready:
                worker = busy[pipe]  # type: ignore[index]
                index, found = worker.take()
                if found is not None:
                    yield Outcome(index, *found)
                    continue
                self.pool.remove(worker)
                if self.stopping:
                    yield Outcome(index, "stopped")
                elif index in lost:
                    yield Outcome(index, "failed", f"its process died twice ({worker.death()})")
                else:
                    lost.add(index)
                    waiting.appendleft(index)
            if not ready:
                yield None
            if self.stopping:
                waiting.clear()

    def running(self) -> list[int]:
        """Indices of the jobs in progress."""
        return [worker.job for worker in self.pool if worker.job is not None]

    def stop(self) -> None:
        """Let the jobs in progress save themselves."""
        self.stopping = True
        for worker in self.pool:
            worker.interrupt()

    def close(self) -> None:
        """End all workers at once."""
        for worker in self.pool:
            worker.dismiss()
        for worker in self.pool:
            worker.end()
        self.pool.clear()

    def _feed(self, jobs: Sequence[Job], waiting: deque[int]) -> None:
        while waiting and not self.stopping:
            idle = next((worker for worker in self.pool if worker.job is None), None)
            if idle is None:
                if len(self.pool) == self.workers:
                    return
                idle = _Worker(self._emptiest())
                self.pool.append(idle)
            index = waiting.popleft()
            idle.give(index, jobs[index])

    def _emptiest(self) -> str | None:
        """The card with the fewest processes, if any are named."""
        used = [worker.card for worker in self.pool]
        return min(self.cards, key=used.count, default=None)


class _Worker:
    """A process that does one job after another.

    Args:
        card: the only GPU it sees; ``None``: all that this process sees.
    """

    def __init__(self, card: str | None = None) -> None:
        self.card = card
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection[Any, Any]
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, card))
        self.process.start()
        theirs.close()
        self.job: int | None = None

    def give(self, index: int, job: Job) -> None:
        self.job = index
        with suppress(OSError):  # it died: `take` will find out
            self.pipe.send(job)

    def take(self) -> tuple[int, Any]:
        """The job's index and what became of it, ``None`` if the process died."""
        index, self.job = self.job, None
        assert index is not None
        try:
            return index, self.pipe.recv()
        except (EOFError, OSError):
            return index, None

    def interrupt(self) -> None:
        if self.process.is_alive():
            self.process.terminate()  # SIGTERM: a run in training saves itself first

    def dismiss(self) -> None:
        self.pipe.close()  # an idle worker leaves by itself

    def end(self) -> None:
        self.process.join(timeout=LEAVE if self.job is None else 0)
        self.process.kill()
        self.process.join()

    def death(self) -> str:
        self.process.join(timeout=5)
        code = self.process.exitcode
        return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _serve(pipe: "Connection[Any, Any]", card: str | None = None) -> None:
    if card is not None:  # Before anything looks for GPUs.
        os.environ["CUDA_VISIBLE_DEVICES"] = card
    os.setpgid(0, 0)  # Ctrl-C on the terminal goes to the sweep, which tells its workers
    try:
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return
