"""Whether a run fits in memory, checked before it is allocated: one that does not would be killed without a message."""

import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import psutil
import torch
from torch.overrides import TorchFunctionMode

from lra.benchmarks.errors import UsageError
from lra.benchmarks.runs.machine import available_memory, threaded
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.networks import network_size, sizes
from lra.benchmarks.setup.reuse import latent_of
from lra.benchmarks.setup.teachers import cached_path
from lra.networks.footprint import footprint
from lra.strategies.retention import REPLAYS

LARGE = 2**26
"""Size in bytes from which it is worth checking whether a tensor fits."""
FLOAT = 4
"""Bytes of a number."""
LEARNT = 3
"""Memory of a network in training, in multiples of its weights: weights, gradients, momentum."""

AT_ONCE = 1024
"""Images that are resized at once, as floats."""

FACTORIES: frozenset[Callable[..., Any]] = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye}
)
"""Functions that make new tensors: weights, latents, noise."""


class Demand(NamedTuple):
    """The memory that one option requires.

    Attributes:
        option: its key.
        value: as it is set.
        size: bytes.
    """

    option: str
    value: object
    size: int


def refuse_oversize(config: RunConfig, data: DataSet, made: Experiment | None = None) -> None:
    """Raise `UsageError` if even the least memory that a run can do with is more than there is.

    Args:
        config: of the run.
        data: its images.
        made: the run, once it is built: then its generator counts too, and what is built does no more.
    """
    refuse_beyond(config.device, _networks(config, data, made), _steps(config, data, made))


def refuse_beyond(device: str, resident: Sequence[Demand], passing: Sequence[Demand]) -> None:
    """Raise `UsageError` if a run takes more memory than is free on ``device``.

    Args:
        device: where it computes.
        resident: what is in memory from start to end.
        passing: what is in memory for a while, one at a time.
    """
    needed = sum(d.size for d in resident) + max((d.size for d in passing), default=0)
    free = available_memory(device)
    if needed > free:
        worst = max([*resident, *passing], key=lambda demand: demand.size)
        raise UsageError(
            f"{worst.option} = {worst.value}: the run takes at least {in_bytes(needed)} of memory and {in_bytes(free)} "
            f"are free on {device}: lower {worst.option}, or whatever else is large: batches, data.size, networks"
        )


def sized(config: RunConfig, data: DataSet) -> RunConfig:
    """``config`` with the threads that torch takes from now on, if the run fits in memory.

    Raises:
        UsageError: if it does not, or a network cannot be built.
        MissingInput: if a network is in a package that is not installed.
    """
    with as_far_as_it_fits(config):
        config = threaded(config, data)
        refuse_oversize(config, data)
    return config


@contextmanager
def as_far_as_it_fits(config: RunConfig) -> Iterator[None]:
    """Refuse tensors larger than what is free, made here, before they are allocated.

    Raises:
        UsageError: at the first.
    """
    with _Watch(config):
        yield


@contextmanager
def bounded(device: str) -> Iterator[Callable[[], None]]:
    """Have the system refuse memory beyond what is free now, instead of killing this process for using it.

    For the first steps of a run, which may ask for more than `refuse_oversize` knows; torch raises then, which
    `lra.benchmarks.errors.in_one_line` explains. On a CPU under Linux; elsewhere nothing is bounded.

    Yields:
        a function that lifts the bound early, because the free memory may change.
    """
    taken = getattr(psutil.Process().memory_info(), "data", None)
    if taken is None or torch.device(device).type != "cpu":
        yield lambda: None
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = taken + available_memory(device)
    if soft != resource.RLIM_INFINITY:
        bound = min(bound, soft)

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    try:
        yield lift
    finally:
        lift()


class _Watch(TorchFunctionMode):
    def __init__(self, config: RunConfig):
        super().__init__()
        self.config = config

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in FACTORIES:
            told = {key: value for key, value in options.items() if key not in ("generator", "out")}
            size = func(*args, **(told | {"device": "meta"})).nbytes
            if size > LARGE and size > (free := available_memory(self.config.device)):
                raise UsageError(
                    f"{self.config.method!r} with replay {self.config.replay['name']!r} needs {in_bytes(size)} of "
                    f"memory at once and {in_bytes(free)} are free on {self.config.device}: lower what is large in "
                    "synthesis and replay (width, latent, capacity), data.size, quantization.noise, or the networks"
                )
        return func(*args, **options)


def in_bytes(size: float) -> str:
    """A size in readable form: ``512 MB``, ``1.9 GB``."""
    units = ("MB", "GB", "TB", "PB", "EB")
    size /= 10**6
    for unit in units:
        if size < 1000 or unit == units[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if size >= 10 or unit == "MB" else f"{size:.1f} {unit}"


def _networks(config: RunConfig, data: DataSet, made: Experiment | None) -> list[Demand]:
    """What is in memory from start to end, as far as it is not allocated yet."""
    pixels = FLOAT * prod(data.image)
    kept = [
        Demand("evaluation.probe_size", config.evaluation.probe_size, config.evaluation.probe_size * pixels),
        _held(config, pixels),
    ]
    if made is not None:
        return kept
    # Beside the bytes of images, the answers of teacher and student.
    each = prod(data.image) + 2 * FLOAT * data.classes
    kept.append(Demand("data.size", config.data.size, _tested(config, data) * each))
    found = sizes(config, data)
    learning = [Demand("student.network", config.student.network, LEARNT * found["student"].weights)]
    if "teacher" in found:
        learning.append(Demand("teacher.network", config.teacher.network, found["teacher"].weights))
    return learning + kept


def _tested(config: RunConfig, data: DataSet) -> int:
    """Images to test on, as far as their number is known."""
    return (data.test_images or 0) if config.data.test else 0


def _held(config: RunConfig, pixels: int) -> Demand:
    """What a built-in replay comes to hold, of images of so many bytes: no more than it is offered."""
    name = config.replay["name"]
    option = REPLAYS[name].held if name in REPLAYS else None
    capacity = 0 if option is None else config.replay[option]
    offered = config.schedule.experiences * config.schedule.batch_size
    return Demand(f"replay.{option}", capacity, min(capacity, offered) * pixels)


def _steps(config: RunConfig, data: DataSet, made: Experiment | None) -> list[Demand]:
    """What is in memory during a step; only one step runs at a time."""
    found, batch, pixels = sizes(config, data), config.schedule.batch_size, FLOAT * prod(data.image)
    asked = found["teacher"].kept if "teacher" in found else 0
    making = asked + pixels + _generator(made)
    steps = [Demand("schedule.batch_size", batch, batch * (found["student"].kept + pixels))]
    images = config.synthesis.get("images")
    if isinstance(images, int):
        steps.append(Demand("synthesis.images", images, images * making))
    else:
        steps.append(Demand("schedule.batch_size", batch, batch * making))
    if config.quantization is not None:
        noise = config.quantization.noise
        steps.append(Demand("quantization.noise", noise, noise * pixels))
    if config.data.size is not None and made is None:
        steps.append(Demand("data.size", config.data.size, min(AT_ONCE, _tested(config, data)) * pixels))
    if made is None and not config.teacher.file and not cached_path(config.teacher, data).is_file():
        steps.append(_training(config, data))
    return steps


def _training(config: RunConfig, data: DataSet) -> Demand:
    """A step of the teacher's training, on no more images than there are."""
    size = network_size("teacher.network", config.teacher.network, data, auxiliary=True)
    batch = config.teacher.batch_size
    if batch * size.kept > LARGE:
        batch = min(batch, len(data.load("train").images))
    weights = (LEARNT - 1) * size.weights
    return Demand("teacher.batch_size", config.teacher.batch_size, batch * size.kept + weights)


def _generator(made: Experiment | None) -> int:
    """Bytes that a generator of latents keeps for each image."""
    network = None if made is None else made.stream.synthesizer.generator_to_reuse()
    latent = latent_of(network)
    return 0 if network is None or latent is None else footprint(network, (latent,)).kept
