"""Runs as Ray tasks, on this machine or on a cluster whose machines share the sweep's folder.

Before the first run, every machine that has room for one is asked whether it can do the runs: it must have the same
code and packages, see the sweep's folder, and find what the runs name, with the same content. Teachers that were
trained here are copied into that folder for all machines. A run whose worker or machine is lost continues elsewhere
from its checkpoint, up to `RETRIES` times.
"""

import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from lra.benchmarks.errors import LraError, MissingInput, UsageError, one_line
from lra.benchmarks.files import sha256, write_atomically, write_text
from lra.benchmarks.runs.kind import DEFAULT, kind_named
from lra.benchmarks.runs.machine import versions
from lra.benchmarks.runs.run_folder import PARTS
from lra.benchmarks.setup.config import Identity
from lra.benchmarks.setup.places import cache_root
from lra.benchmarks.sweeps.engines import POLL, Job, Outcome, Status, work

PATIENCE = 5.0
"""Seconds within which the address of a cluster must answer."""
ANSWER = 120.0
"""Seconds within which a machine must say whether it can do the runs."""
RETRIES = 2
"""How many times Ray resumes a run whose worker was lost."""
LENT = ".lent"
"""Name of the folder inside the sweep's that serves its workers as cache."""


class RayEngine:
    """Ray tasks; a run whose worker is lost continues elsewhere from its checkpoint.

    Args:
        workers: runs at a time if Ray is started here; in a cluster, its processors decide.
        threads: processors of each run.
        address: of a cluster, or ``auto``; ``None`` starts Ray on this machine.
        gpus: GPUs of each run; may be a fraction.

    Raises:
        MissingInput: if Ray is not installed.
        UsageError: if the address is malformed.
        LraError: if it does not answer.
    """

    def __init__(self, workers: int, threads: int, address: str | None = None, gpus: float = 0.0):
        require_ray()
        import ray

        self.ray, self.needs = ray, {"CPU": threads, "GPU": gpus}
        # Ray prints messages about its workers on stdout, which is for results.
        self.redirected = ExitStack()
        self.redirected.enter_context(redirect_stdout(sys.stderr))
        self.shelf: Path | None = None
        self.tasks: dict[Any, int] = {}
        self.stopping = False
        _connect(ray, address, workers * threads)

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome | None]:
        """Do the jobs; see `Engine.outcomes`.

        Raises:
            UsageError: before any is started, if a machine of the cluster cannot do them.
        """
        if not jobs:
            return
        self.shelf = shelf = Path(jobs[0].out) / LENT
        sorts = distinct(jobs)
        lend(sorts, shelf)
        self._refuse_unfit(sorts, shelf)
        task = self.ray.remote(work_there).options(
            num_cpus=self.needs["CPU"], num_gpus=self.needs["GPU"], max_retries=RETRIES, retry_exceptions=False
        )
        self.tasks = {task.remote(job, str(shelf)): index for index, job in enumerate(jobs)}
        while self.tasks:
            ready, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=POLL)
            for reference in ready:
                yield self._outcome(reference, self.tasks.pop(reference))
            if not ready:
                yield None

    def running(self) -> list[int]:
        """Jobs that have not ended: Ray does not say which of its tasks are still waiting."""
        return list(self.tasks.values())

    def stop(self) -> None:
        """Cancel all tasks: one in training gets an interrupt and saves itself."""
        self.stopping = True
        for reference in self.tasks:
            self.ray.cancel(reference, force=False)

    def close(self) -> None:
        """Leave the cluster, or end the one started here, and delete the copies of teachers."""
        self.ray.shutdown()
        if self.shelf is not None:
            shutil.rmtree(self.shelf, ignore_errors=True)
        self.redirected.close()

    def _refuse_unfit(self, jobs: Sequence[Job], shelf: Path) -> None:
        """Raise `UsageError` for the first machine that has room for a run but cannot do it, or if none has room."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        able = [
            node
            for node in self.ray.nodes()
            if node["Alive"] and all(node["Resources"].get(name, 0.0) >= need for name, need in self.needs.items())
        ]
        if not able:
            what = " and ".join(f"{need:g} {name}s" for name, need in self.needs.items() if need)
            raise UsageError(f"--engine ray: no machine has {what}, which a run needs: add one, or lower --threads")
        mark, token = shelf / uuid4().hex, uuid4().hex
        write_text(mark, token)
        ask = self.ray.remote(objection)
        asked: dict[Any, str] = {}
        arguments = jobs, str(mark), token, versions(), code_digest()
        try:
            for node in able:
                there = ask.options(num_cpus=0, max_retries=0, scheduling_strategy=On(node["NodeID"], soft=False))
                asked[there.remote(*arguments)] = node["NodeManagerAddress"]
            for reference, machine in asked.items():
                try:
                    said = self.ray.get(reference, timeout=ANSWER)
                except self.ray.exceptions.RayError as error:
                    said = f"it cannot do runs ({_first_line(error)}): install there what is installed here"
                if said:
                    raise UsageError(f"--engine ray: machine {machine}: {said}")
        finally:
            mark.unlink(missing_ok=True)

    def _outcome(self, reference: Any, index: int) -> Outcome:
        errors = self.ray.exceptions
        try:
            return Outcome(index, *self.ray.get(reference))
        except (errors.TaskCancelledError, KeyboardInterrupt):
            return Outcome(index, "stopped")
        except errors.RayError as error:
            if self.stopping:
                return Outcome(index, "stopped")
            return Outcome(index, "failed", f"its worker was lost {RETRIES + 1} times: {_first_line(error)}")


def require_ray() -> None:
    """Raise `MissingInput` if Ray is not installed, without importing it."""
    try:
        version("ray")
    except PackageNotFoundError:
        raise MissingInput("--engine ray needs Ray, which is not installed: pip install ray") from None


def work_there(job: Job, shelf: str) -> tuple[Status, str]:
    """Do one job on any machine, with the teachers on the ``shelf``, once a lost worker has let go of its folder."""
    if not Path(shelf).is_dir():  # This machine joined later, and was not asked.
        return "failed", f"machine {socket.gethostname()} does not see {Path(shelf).parent}, which all must share"
    os.environ["LRA_CACHE"] = shelf
    return work(job, wait=True)


def lend(jobs: Iterable[Job], shelf: Path) -> None:
    """Copy the teachers of some jobs from the user's cache to the ``shelf``, which is laid out like the cache."""
    files: dict[str, Path] = {}
    for job in jobs:
        kind = kind_named(job.tree.get("kind", DEFAULT))
        for file in kind.kept(kind.trusted(job.tree)):
            files[str(file.relative_to(cache_root()))] = file
    for name, file in files.items():
        if not (shelf / name).is_file() or sha256(shelf / name) != sha256(file):
            data = file.read_bytes()
            write_atomically(shelf / name, lambda there, data=data: there.write(data))  # type: ignore[misc]


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """One job of each sort: jobs of a sort name the same teachers, data and code."""
    found: dict[str, Job] = {}
    for job in jobs:
        parts = {name: part for name, part in job.identity.items() if name != "settings"}
        places = kind_named(job.tree.get("kind", DEFAULT)).places(job.tree, Path(job.out))
        found.setdefault(repr((places, parts)), job)
    return list(found.values())


def objection(jobs: Sequence[Job], mark: str, token: str, packages: Mapping[str, str], code: str) -> str | None:
    """Why this machine cannot do jobs of a sweep that was started on another; ``None`` if it can.

    Args:
        jobs: one of each sort, see `distinct`.
        mark: a file on the sweep's shelf.
        token: the text in it.
        packages: versions on the other machine.
        code: `code_digest` on the other machine.
    """
    ours = versions()
    other = next((name for name in packages if _public(ours[name]) != _public(packages[name])), None)
    if other is not None:
        return f"it has {other} {ours[other]}, but the sweep was started with {packages[other]}: install that on all"
    if code_digest() != code:
        return f"its code of lra {ours['lra']} is not the code that started the sweep: install the same on all"
    shelf = Path(mark).parent
    try:
        seen = Path(mark).read_text()
    except OSError:
        seen = ""
    if seen != token:
        return f"it does not see {shelf.parent}: choose with --out a folder that all machines see under the same path"
    if not os.access(shelf.parent, os.W_OK):
        return f"it may not write to {shelf.parent}: change its permissions, or choose another folder with --out"
    os.environ["LRA_CACHE"] = str(shelf)
    for job in jobs:
        kind = kind_named(job.tree.get("kind", DEFAULT))
        try:
            config = kind.trusted(job.tree)
            kind.require(config)
            found = kind.identity(config)
        except (LraError, OSError) as error:
            return f"{error}; it must be there on every machine"
        unlike = "other teachers or training data" if found is None else unlikeness(job.identity, found)
        if unlike:
            return f"it has {unlike} where the grid says: put the same under the same path on every machine"
    return None


def unlikeness(there: Identity, here: Identity) -> str | None:
    """What, apart from its settings, makes a run different here from there; ``None`` if nothing does."""
    for part in PARTS[1:]:
        ours, theirs = here.get(part), there.get(part)
        if ours == theirs:
            continue
        if isinstance(theirs, Mapping):
            found = ours if isinstance(ours, Mapping) else {}
            names = [name for name in theirs if found.get(name) != theirs[name]]
            if part == "tasks":
                return next((said for name in names if (said := unlikeness(theirs[name], found[name]))), None)
            absent = [name for name in names if name not in found]
            what = "module" if part == "code" else "file"
            return f"{'no' if absent else 'other'} {what} {(absent or names or [part])[0]}"
        return f"{'no' if ours is None else 'other'} {'test data' if part == 'test' else part}"
    return None


def code_digest() -> str:
    """A hash of the source of this program, however it was installed."""
    files: dict[str, Path] = {}
    for package in ("lra", "lra.strategies", "lra.benchmarks"):
        spec = find_spec(package)
        for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
            files |= {f"{package.replace('.', '/')}/{file.relative_to(folder)}": file for file in folder.rglob("*.py")}
    return hashlib.sha256("".join(f"{name} {sha256(files[name])}\n" for name in sorted(files)).encode()).hexdigest()


def _public(number: str) -> str:
    """A version without its build label, such as ``+cpu``."""
    return number.partition("+")[0]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _connect(ray: Any, address: str | None, processors: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        # Without an address, it would join any cluster that runs here.
        ray.init(address="local", num_cpus=processors, include_dashboard=False, **quiet)
        return
    if address != "auto":
        _refuse_silent(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, ImportError) as error:
        raise LraError(
            f"--address {address}: the cluster cannot be used ({one_line(error)}); start one with: ray start --head"
        ) from None


def _refuse_silent(address: str) -> None:
    """Raise within `PATIENCE` seconds if nothing listens there: Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--address {address!r}: write it as host:port, ray://host:port or auto")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as error:
        raise LraError(
            f"--address {address}: nothing answers there ({error.strerror or error}); start Ray with: ray start --head"
        ) from None
