"""The processes of one run: one, or as many as torchrun started."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from lra.benchmarks.errors import UsageError
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.retaining import held_option
from lra.state import State
from lra.strategies.distributed import distribute, together

PATIENCE = timedelta(hours=24)
"""How long a process waits for another that is alive, such as one that trains the teacher."""

T = TypeVar("T")


class Processes:
    """The processes of a run, seen from one of them.

    Args:
        rank: index of this process; 0 is the leader, which alone writes the run folder.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1):
        self.rank = rank
        self.count = count

    def share(self, config: RunConfig) -> RunConfig:
        """The share of the run that one process does: its part of every batch, and of what replay holds.

        Raises:
            UsageError: if the run cannot be split evenly.
        """
        if self.count == 1:
            return config
        if config.on_divergence == "rollback":
            raise UsageError("on_divergence = 'rollback' is for a run on one process: use stop")
        schedule = config.schedule.model_copy(
            update={"batch_size": self._part("schedule.batch_size", config.schedule.batch_size)}
        )
        held = held_option(config.replay["name"])
        replay = {k: self._part(f"replay.{k}", v) if k == held else v for k, v in config.replay.items()}
        return config.model_copy(update={"schedule": schedule, "replay": replay})

    def _part(self, name: str, whole: int) -> int:
        if whole % self.count:
            raise UsageError(f"{name} = {whole} cannot be split evenly over {self.count} processes: make it divisible")
        return whole // self.count

    def join(self, experiment: Experiment) -> None:
        """Connect the parts of all processes; from here on each draws its own random numbers.

        Raises:
            UsageError: if the method makes samples that cannot be split.
        """
        if self.count == 1:
            return
        synthesizer = experiment.stream.synthesizer
        if not synthesizer.divisible:
            raise UsageError(
                f"method {experiment.config.method!r} makes finite batches, which only one process can make: choose "
                "one with an online generator (see lra-bench list methods), or run it without torchrun"
            )
        distribute(experiment.strategy, synthesizer, experiment.config.seed)

    def in_turn(self, make: Callable[[], T]) -> T:
        """Call ``make`` on the leader first, so that what it stores is there for the others."""
        if self.count == 1:
            return make()
        if self.rank:
            together(dist.barrier)
        made = make()
        if not self.rank:
            together(dist.barrier)
        return made

    def agreed(self, *flags: bool) -> list[bool]:
        """Which of ``flags`` are set on any process."""
        if self.count == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.uint8)
        together(dist.all_reduce, raised, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def gathered(self, state: State) -> State:
        """On the leader its state, with those of all others in it; on the others nothing of use."""
        if self.count == 1:
            return state
        states: list[State] | None = None if self.rank else [{} for _ in range(self.count)]
        together(dist.gather_object, state, states)
        return state if states is None else state | {"others": states[1:]}

    def own(self, saved: State) -> State:
        """This process's part of a saved state.

        Raises:
            ValueError: if a different number of processes saved it.
        """
        others: Sequence[State] = saved.get("others", [])
        if len(others) != self.count - 1:
            raise ValueError(f"saved by {len(others) + 1} processes, and these are {self.count}: start as many")
        return others[self.rank - 1] if self.rank else saved

    def sum_up(self, experiment: Experiment) -> None:
        """Make the counters of a run's cost count for all processes."""
        if self.count > 1:
            synthesizer, teacher = experiment.stream.synthesizer, experiment.stream.teacher
            counts = torch.tensor([synthesizer.images_generated, teacher.queries])
            together(dist.all_reduce, counts)
            synthesizer.images_generated, teacher.queries = map(int, counts)

    @contextmanager
    def folder(self, folder: RunFolder) -> Iterator[RunFolder]:
        """Where this process writes: the run folder, or, if it is not the leader, a temporary one."""
        if not self.rank:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="lra-") as scratch:
            yield Follower(Path(scratch), folder)


class Follower(RunFolder):
    """The temporary folder of a process that is not the leader; it continues from what the leader saved."""

    def __init__(self, path: Path, leader: RunFolder):
        super().__init__(path)
        self.leader = leader
        if (leader.path / "metrics.jsonl").is_file():
            shutil.copy(leader.path / "metrics.jsonl", path)

    def restore(self) -> State | None:
        """What the leader saved."""
        return self.leader.restore()

    def save(self, state: State | memoryview) -> None:
        """Leave it to the leader."""


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, in touch with one another; or just this one."""
    if not dist.is_torchelastic_launched():
        yield Processes()
        return
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(device: str) -> str:
    """The device of this process: of several on one machine, each has its own GPU."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and dist.is_torchelastic_launched() else device
