"""The machine a run is on: whether it has the device, what is installed, what memory and threads it takes."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra import __version__
from lra.benchmarks.errors import UsageError, one_line
from lra.benchmarks.setup.networks import sizes

if TYPE_CHECKING:
    from lra.benchmarks.setup.config import RunConfig
    from lra.benchmarks.setup.datasets import DataSet

CONTROL = Path("/sys/fs/cgroup")
"""Where the system says what a container may use."""

SMALL = 5e8
"""Multiply-adds of a network's forward pass of a batch, some hundredths of a second on one thread: with fewer, threads
wait for one another more than they compute, all the more where other processes compete for the CPU."""

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_MAX`` of glibc's ``mallopt``."""


class Stopwatch:
    """Wall-clock and CPU time of work that may be stopped and continued by another process."""

    def __init__(self) -> None:
        self._before = {"seconds": 0.0, "processor_seconds": 0.0}
        self.start()

    def start(self) -> None:
        """Count from now on, in addition to what was taken up."""
        self._began = {"seconds": time.monotonic(), "processor_seconds": time.process_time()}

    def read(self) -> dict[str, float]:
        """``seconds`` so far, and ``processor_seconds`` of all threads of this process."""
        now = {"seconds": time.monotonic(), "processor_seconds": time.process_time()}
        return {name: self._before[name] + now[name] - self._began[name] for name in now}

    def take_up(self, read: Mapping[str, float]) -> None:
        """Continue from what was read before."""
        self._before = {name: float(read[name]) for name in self._before}


def refuse_device(device: str) -> None:
    """Raise `UsageError` unless tensors can be made on ``device``."""
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device = {device!r} cannot be used: {one_line(error, most=500)}") from None


def refuse_precision(config: RunConfig) -> None:
    """Raise `UsageError` where passes are to be made in bfloat16 and the device of a run cannot."""
    option = _in_bfloat16(config)
    if option is None or has_bfloat16(config.device):
        return
    raise UsageError(f"{option} = 'bfloat16': {config.device} has no bfloat16; leave it out, or use another device")


def slow_precision(config: RunConfig) -> list[str]:
    """A note where passes are to be made in bfloat16 on a processor that is slower in it than in float32."""
    option = _in_bfloat16(config)
    if option is None or config.device != "cpu" or not emulates_bfloat16():
        return []
    return [f"{option} = 'bfloat16': this processor has no instructions for it, float32 takes less time"]


def _in_bfloat16(config: RunConfig) -> str | None:
    """The first option that asks for bfloat16."""
    asked = {"student.precision": config.student.precision, "compute.precision": config.compute.precision}
    return next((name for name, value in asked.items() if value == "bfloat16"), None)


def has_bfloat16(device: str) -> bool:
    """Whether ``device`` supports bfloat16; every CPU does, some by emulation."""
    import torch

    kind = torch.device(device).type
    return kind == "cpu" or (kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))


def emulates_bfloat16() -> bool:
    """Whether this processor is known to lack instructions for bfloat16; earlier versions of torch do not tell."""
    import torch

    told: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    instructions = [there for name, there in told.items() if "bf16" in name or name == "avx_ne_convert"]
    return bool(instructions) and not any(instructions)


def cards() -> list[str]:
    """The GPUs that torch sees, by their names in ``CUDA_VISIBLE_DEVICES``."""
    import torch

    told = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return told[:count] or [str(index) for index in range(count)]


def processors() -> int:
    """How many CPU cores this process may use: those it is bound to, or as many as its container is allowed."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *_quota()]))


def _quota() -> list[int]:
    """The CPU cores that a control group (version 2, or 1) allows, rounded up; empty if it sets no limit."""
    root = CONTROL
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [-(-int(quota) // int(period))] if int(quota) > 0 else []
    except (OSError, ValueError):
        return []


def environment() -> dict[str, Any]:
    """What the run ran on."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of this program and of the packages that affect a run's results."""
    names = ("torch", "torchvision", "avalanche-lib", "higher", "numpy", "scikit-learn")
    return {"lra": __version__} | {name: version(name) for name in names}


def available_memory(device: str) -> int:
    """Bytes that can still be taken on ``device``: of the GPU, or of the system and of what the container has of it."""
    import psutil
    import torch

    if torch.device(device).type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return min([int(psutil.virtual_memory().available), *_allowance()])


def _allowance() -> list[int]:
    """What a control group (version 2, or 1) leaves, beside files that it holds only as long as there is room."""
    files = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    for (limit, usage), statistics in zip(files, ("memory.stat", "memory/memory.stat"), strict=True):
        try:
            most, used = (int((CONTROL / name).read_text()) for name in (limit, usage))
            counted = dict(line.split() for line in (CONTROL / statistics).read_text().splitlines())
        except (OSError, ValueError):  # Not this version, or "max".
            continue
        return [max(0, most - used + int(counted.get("inactive_file", 0)))]
    return []


def peak_memory(device: str) -> float:
    """Peak memory so far in MiB: of the GPU, or of the process."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if platform.system() == "Darwin" else 2**10)


def leads() -> bool:
    """Whether this process is the one that prints: the first of those that torchrun started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def threads_for(work: float, device: str) -> int:
    """One where networks are small, or compute on a GPU; else one for every CPU core, or ``OMP_NUM_THREADS``.

    For small networks it does not depend on the machine, so neither do the floating-point sums of their runs.

    Args:
        work: multiply-adds of the largest network's forward pass of a batch.
        device: where it computes.
    """
    import torch

    if work < SMALL or torch.device(device).type != "cpu":
        return 1
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isdecimal() and int(told) else processors()


def threads_of(config: RunConfig, data: DataSet) -> int:
    """The number of threads of a run: what its configuration says, or what suits its networks and its batch.

    Raises:
        LraError: if a network cannot be built.
    """
    if config.threads:
        return config.threads
    largest = max(size.work for size in sizes(config, data).values())
    return threads_for(largest * config.schedule.batch_size, config.device)


def threaded(config: RunConfig, data: DataSet) -> RunConfig:
    """``config`` with its `threads_of` filled in; see `compute_with`."""
    config = config.model_copy(update={"threads": threads_of(config, data)})
    assert config.threads is not None
    compute_with(config.threads)
    return config


def compute_with(threads: int) -> None:
    """From now on torch uses so many threads, and freed memory is kept for what is allocated next."""
    import torch

    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Give back to the system what memory is free now, but from now on keep what is freed; with glibc only.

    It would give each large tensor back, and the system then clears every page of the next one, which takes an eighth
    of a student's step where maps have 32 MiB.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.malloc_trim(0)
        library.mallopt(TRIM_THRESHOLD, -1)
        library.mallopt(MMAP_MAX, 0)
