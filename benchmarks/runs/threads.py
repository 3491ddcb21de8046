"""How many threads torch takes: by the size of the networks, the same way in every command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lra.benchmarks.runs.machine import processors
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.networks import sizes

if TYPE_CHECKING:
    from lra.benchmarks.setup.datasets import DataSet


SMALL = 5e8
"""Multiply-adds of a network's forward pass of a batch, some hundredths of a second of one thread: with fewer, threads
wait for one another more than they compute, all the more where other processes take a processor away."""


def threads_for(work: float, device: str) -> int:
    """One where networks are small, or compute elsewhere; else every processor there is, or ``OMP_NUM_THREADS``.

    Of small networks it does not depend on the machine, so neither do the sums of their runs.

    Args:
        work: multiply-adds of the largest network's forward pass of a batch.
        device: where it computes.
    """
    import torch

    if work < SMALL or torch.device(device).type != "cpu":
        return 1
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isdecimal() and int(told) else processors()


def chosen(config: RunConfig, data: DataSet) -> int:
    """The threads of a run: what its configuration says, or what its networks and its batch ask for.

    Raises:
        LraError: if a network cannot be built.
    """
    if config.threads:
        return config.threads
    largest = max(size.work for size in sizes(config, data).values())
    return threads_for(largest * config.schedule.batch_size, config.device)


def threaded(config: RunConfig, data: DataSet) -> RunConfig:
    """``config`` with the number of threads `chosen`, which torch takes from now on."""
    import torch

    config = config.model_copy(update={"threads": chosen(config, data)})
    assert config.threads is not None
    torch.set_num_threads(config.threads)
    return config
