"""The runs of a sweep as Ray tasks: on this machine, or on a cluster whose nodes share the sweep's folder."""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from typing import Any

from lra.benchmarks.errors import LraError, MissingInput, UsageError, one_line
from lra.benchmarks.sweeps.engines import Job, Outcome, work

PATIENCE = 5.0
"""Seconds that an address has to answer in."""
POLL = 0.5
RETRIES = 2
"""Times that a run whose worker was lost is resumed."""


class RayEngine:
    """Ray tasks; a run whose worker is lost goes on elsewhere from its checkpoint.

    Args:
        workers: runs at a time, where Ray is started here; a cluster decides by its processors.
        threads: processors of each run.
        address: of a cluster, or ``auto``; ``None`` starts Ray on this machine.
        gpus: of each run; may be a fraction.

    Raises:
        MissingInput: if Ray is not installed.
        LraError: if the address does not answer.
    """

    def __init__(self, workers: int, threads: int, address: str | None = None, gpus: float = 0.0):
        self.ray = _ray()
        # Ray prints what happens to its workers on stdout, which is for results.
        self.redirected = ExitStack()
        self.redirected.enter_context(redirect_stdout(sys.stderr))
        self.tasks: dict[Any, int] = {}
        self.stopping = False
        _connect(self.ray, address, workers * threads)
        self.task = self.ray.remote(work).options(
            num_cpus=threads, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False
        )

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome | None]:
        """Do the jobs; see `Engine.outcomes`."""
        self.tasks = {self.task.remote(job): index for index, job in enumerate(jobs)}
        while self.tasks:
            ready, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=POLL)
            for reference in ready:
                yield self._outcome(reference, self.tasks.pop(reference))
            if not ready:
                yield None

    def running(self) -> list[int]:
        """Jobs that have begun and not ended: Ray does not say which of its tasks wait."""
        return list(self.tasks.values())

    def stop(self) -> None:
        """Cancel all tasks: one in training gets an interrupt and saves itself."""
        self.stopping = True
        for reference in self.tasks:
            self.ray.cancel(reference, force=False)

    def close(self) -> None:
        """Leave the cluster, or end the one started here."""
        self.ray.shutdown()
        self.redirected.close()

    def _outcome(self, reference: Any, index: int) -> Outcome:
        errors = self.ray.exceptions
        try:
            return Outcome(index, *self.ray.get(reference))
        except (errors.TaskCancelledError, KeyboardInterrupt):
            return Outcome(index, "stopped")
        except errors.RayError as error:
            if self.stopping:
                return Outcome(index, "stopped")
            line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            return Outcome(index, "failed", f"its worker was lost {RETRIES + 1} times: {line.strip()[:200]}")


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingInput("--engine ray needs Ray, which is not installed: pip install 'lra[ray]'") from None
    return ray


def _connect(ray: Any, address: str | None, processors: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        ray.init(num_cpus=processors, include_dashboard=False, **quiet)
        return
    if address != "auto":
        _refuse_silent(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        line = one_line(error)
        raise LraError(
            f"--address {address}: no Ray cluster answers ({line}); start one with: ray start --head"
        ) from None


def _refuse_silent(address: str) -> None:
    """Raise in `PATIENCE` seconds where nothing listens: Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--address {address!r}: write it as host:port, ray://host:port or auto")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as error:
        raise LraError(
            f"--address {address}: nothing answers there ({error.strerror or error}); start Ray with: ray start --head"
        ) from None
