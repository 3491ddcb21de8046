"""Replay of the samples that were hardest when they were new: furthest from the teacher's answers."""

from typing import Self

import torch
from torch import Tensor

from lra import Batch, State
from lra.distances import l1
from lra.strategies import DataFreeDistillation, Replay, Setup


class HardestReplay(Replay):
    """Keeps the ``capacity`` hardest samples of the stream; options are what `build` takes."""

    held = "capacity"

    def __init__(self, size: int, capacity: int):
        super().__init__(size)
        self.capacity = capacity
        self.kept: list[Tensor] = []

    @classmethod
    def build(cls, setup: Setup, capacity: int = 128) -> Self:
        if capacity < 1:
            raise ValueError(f"capacity = {capacity}: at least 1")
        return cls(max(1, setup.batch_size // 8), capacity)

    def recall(self) -> Batch | None:
        if not self.kept:
            return None
        images, logits, *_ = self.kept
        where = torch.randint(len(images), (self.size,))
        return Batch(images[where], logits[where])

    def remember(self, strategy: DataFreeDistillation) -> None:
        images, logits, *_ = strategy.acquired
        # A minibatch has the new samples first.
        hardness = l1(strategy.mb_output[: len(images)].detach(), logits)
        new = [images, logits, hardness]
        every = [torch.cat(pair) for pair in zip(self.kept, new, strict=True)] if self.kept else new
        hardest = every[2].topk(min(self.capacity, len(every[2]))).indices
        self.kept = [part[hardest] for part in every]

    def state_dict(self) -> State:
        return super().state_dict() | {"kept": list(self.kept)}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.kept = list(state["kept"])
