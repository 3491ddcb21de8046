"""The image pool: every finite batch that synthesis ever made, as bytes, up to a stated capacity."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import torch
from torch import Tensor

from lra.memory.buffers import reservoir_places
from lra.memory.options import PoolOptions
from lra.state import State


class PoolBatch(NamedTuple):
    """Images of a pool with where they come from."""

    images: Tensor
    """(n, C, H, W) uint8."""
    labels: Tensor
    """(n,) int64: the classes they were asked to be."""
    births: Tensor
    """(n,) int64: the experiences that brought them."""


class Placement(ABC):
    """Which place in a store each newcomer takes."""

    capacity: int | None

    @abstractmethod
    def places(self, seen: int, n: int) -> tuple[Tensor, Tensor]:
        """Places (m,) and which of the ``n`` newcomers (m,) take them, after ``seen`` earlier ones."""


class Unbounded(Placement):
    """Everything is kept: the pool is as large as the run is long."""

    capacity = None

    def places(self, seen: int, n: int) -> tuple[Tensor, Tensor]:
        """The next ``n`` places."""
        return torch.arange(seen, seen + n), torch.arange(n)


class Fifo(Placement):
    """The latest ``capacity`` images."""

    def __init__(self, capacity: int):
        self.capacity: int = capacity

    def places(self, seen: int, n: int) -> tuple[Tensor, Tensor]:
        """The places of the oldest images, going round; of too many newcomers the last."""
        chosen = torch.arange(max(0, n - self.capacity), n)
        return (seen + chosen) % self.capacity, chosen


class Uniform(Placement):
    """A uniform sample of everything (algorithm R), of ``capacity`` images."""

    def __init__(self, capacity: int):
        self.capacity: int = capacity

    def places(self, seen: int, n: int) -> tuple[Tensor, Tensor]:
        """Random places, so that each image seen so far stays with equal probability."""
        return reservoir_places(seen, n, self.capacity)


class ImagePool:
    """One uint8 tensor of images beside their labels and births; it grows by doubling up to its capacity.

    It lives where the first images do (CPU or GPU), and in no file. At most three times its images are taken
    for a moment while it grows, at most twice afterwards.

    Args:
        placement: the policy, with its capacity.
    """

    def __init__(self, placement: Placement):
        self.placement = placement
        self.seen = 0
        self.filled = 0
        self._rows: PoolBatch | None = None

    @classmethod
    def of(cls, options: PoolOptions) -> Self:
        """An empty pool."""
        if options.policy == "unbounded":
            return cls(Unbounded())
        return cls(Fifo(options.capacity) if options.policy == "fifo" else Uniform(options.capacity))

    def __len__(self) -> int:
        """Images held."""
        return self.filled

    def add(self, images: Tensor, labels: Tensor, birth: int) -> None:
        """Take in what an experience brought.

        Args:
            images: (n, C, H, W) uint8; see `lra.images.to_bytes`.
            labels: (n,).
            birth: index of the experience.
        """
        n = len(images)
        places, chosen = self.placement.places(self.seen, n)
        self.seen += n
        self.filled = self.seen if self.placement.capacity is None else min(self.seen, self.placement.capacity)
        rows = self._rows = self._grown(PoolBatch(images, labels, torch.full_like(labels, birth)))
        places, chosen = places.to(images.device), chosen.to(images.device)
        rows.images[places] = images[chosen]
        rows.labels[places] = labels[chosen]
        rows.births[places] = birth

    def sample(self, n: int) -> PoolBatch:
        """``n`` images, uniformly with replacement.

        Raises:
            IndexError: if nothing has been added yet.
        """
        if self._rows is None or not self.filled:
            raise IndexError("the pool is empty: add images before sampling")
        where = torch.randint(self.filled, (n,)).to(self._rows.images.device)
        return PoolBatch(*(column[where] for column in self._rows))

    def contents(self) -> PoolBatch | None:
        """Everything held, without a copy; ``None`` before the first `add`."""
        return None if self._rows is None else PoolBatch(*(column[: self.filled] for column in self._rows))

    def _grown(self, like: PoolBatch) -> PoolBatch:
        """Columns with room for `filled` rows of the kind of ``like``, the old ones copied."""
        if self._rows is not None and len(self._rows.labels) >= self.filled:
            return self._rows
        room = 2 ** (self.filled - 1).bit_length()
        room = min(room, self.placement.capacity or room)
        columns = PoolBatch(*(column.new_empty(room, *column.shape[1:]) for column in like))
        if self._rows is not None:
            for new, old in zip(columns, self._rows, strict=True):
                new[: len(old)] = old
        return columns

    def state_dict(self) -> State:
        """What is held, and how many images were offered."""
        held = self.contents()
        return {"seen": self.seen, "rows": None if held is None else [column.clone() for column in held]}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`.

        Raises:
            ValueError: if it holds more than this pool can.
        """
        rows = state["rows"]
        self.seen, self.filled = state["seen"], 0 if rows is None else len(rows[0])
        if self.filled > (self.placement.capacity or self.filled):
            raise ValueError(f"a pool of {self.filled} images does not fit a capacity of {self.placement.capacity}")
        self._rows = None if rows is None else self._refilled(PoolBatch(*rows))

    def _refilled(self, rows: PoolBatch) -> PoolBatch:
        self._rows = None
        columns = self._grown(rows)
        for new, old in zip(columns, rows, strict=True):
            new[: len(old)] = old
        return columns
