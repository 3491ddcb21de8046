"""The runs of a sweep on processes of this machine."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from lra.benchmarks.sweeps.engines import Job, Outcome, work

POLL = 0.5
"""Seconds between looks at the clock."""
LEAVE = 20.0
"""Seconds that an idle worker has to leave in."""


class LocalEngine:
    """Processes on this machine, one job each at a time; a process that dies is replaced and its job resumed once.

    Args:
        workers: processes at most.
    """

    def __init__(self, workers: int):
        self.workers = workers
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
                idle = _Worker()
                self.pool.append(idle)
            index = waiting.popleft()
            idle.give(index, jobs[index])


class _Worker:
    """A process that does one job after another."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection[Any, Any]
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
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


def _serve(pipe: "Connection[Any, Any]") -> None:
    os.setpgid(0, 0)  # Ctrl-C on the terminal goes to the sweep, which tells its workers
    try:
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return
