"""Started by test_distributed.py: the same few experiences on one process, or on as many as torchrun starts.

Every process draws the latents of the whole batch and keeps its share, so that the shares are one process's batch.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lra.distances import l1
from lra.distillation.objective import Objective
from lra.memory.buffers import Ring
from lra.memory.generator import Encoder, MemoryGenerator
from lra.meta.options import LRAOptions
from lra.options import MemoryGeneratorOptions
from lra.problem import Teacher
from lra.strategies.distributed import distribute
from lra.strategies.evaluation import QuietEvaluation
from lra.strategies.lra import LRA
from lra.strategies.replay import BufferReplay, GenerativeReplay
from lra.strategies.strategy import DataFreeDistillation, Replay
from lra.strategies.stream import SynthesisStream
from lra.synthesis.online import OnlineGenerator
from lra.synthesis.terms import Disagreement, OneHot

BATCH, CLASSES = 16, 10

CASES: dict[str, dict[str, Any] | None] = {
    "replay": None,
    "memory generator": None,
    "meta": {"alpha": 0.1, "order": 2},
    "meta, clipped": {"alpha": 0.1, "order": 2, "clip": 0.5},
    "meta, first order": {"alpha": 0.1, "order": 1},
    "meta, both losses whole": {"alpha": 0.1, "order": 2, "mixture": "sum"},
    "meta, own shares": {"alpha": 0.1, "order": 2, "shares": "own"},
    "meta by higher": {"alpha": 0.1, "order": 2, "engine": "higher"},
    "batch statistics": {"alpha": 0.1, "order": 2},
}


class Shares(OnlineGenerator):
    """A generator whose latents are this process's share of all."""

    rank, count = 0, 1

    def latents(self, n: int) -> Tensor:
        return torch.randn(n * self.count, self.latent).chunk(self.count)[self.rank]


def student(batchnorm: bool) -> nn.Module:
    norm = nn.BatchNorm2d(4) if batchnorm else nn.Identity()
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(144, CLASSES))


def train(case: str, rank: int = 0, count: int = 1) -> dict[str, Tensor]:
    """Student and generator after five experiences of two steps."""
    torch.manual_seed(1)
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, CLASSES)))
    generator = nn.Sequential(nn.Linear(8, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    model, part = student(case == "batch statistics"), BATCH // count
    adam = torch.optim.Adam(generator.parameters(), lr=0.01)
    synthesizer = Shares(generator, adam, [OneHot(1.0), Disagreement(1.0)], teacher, latent=8, batch_size=part)
    synthesizer.rank, synthesizer.count = rank, count
    replay: Replay = BufferReplay(Ring(3, part), part)
    if case == "memory generator":
        body = nn.Sequential(nn.Linear(8, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
        encoder = Encoder(8, (1, 8, 8), mean=(0.5,), std=(0.5,), width=8)
        replay = GenerativeReplay(MemoryGenerator(body, encoder, teacher, 8, MemoryGeneratorOptions()), part)
    options = CASES[case]
    step = [] if options is None else [LRA(replay, LRAOptions(**options))]
    strategy = DataFreeDistillation(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        objective=Objective(l1),
        train_mb_size=part,
        plugins=[replay, *step],
        evaluator=QuietEvaluation(),
    )
    if count > 1:
        distribute(strategy, synthesizer)
    with counted() as messages:
        strategy.train(SynthesisStream(synthesizer, teacher, 5, 2, part))
    found = {f"student.{name}": value for name, value in model.state_dict().items()}
    for owner in (synthesizer, replay):
        for of, network in owner.networks().items():
            found |= {f"{of}.{name}": value for name, value in network.state_dict().items()}
    return found | {"messages": torch.tensor(len(messages))}


@contextmanager
def counted() -> Iterator[list[int]]:
    """The sizes of what is averaged over processes meanwhile."""
    reduce, sizes = dist.all_reduce, list[int]()

    def counting(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        sizes.append(tensor.numel())
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = counting
    try:
        yield sizes
    finally:
        dist.all_reduce = reduce


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo")
    rank, count = dist.get_rank(), dist.get_world_size()
    torch.save({case: train(case, rank, count) for case in CASES}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__" and "RANK" in os.environ:
    main(Path(sys.argv[1]))
