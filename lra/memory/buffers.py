"""Memories for replay: buffers of images with the teacher's logits, and the pool of images as bytes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lra.memory.priorities import Priorities
from lra.memory.usefulness import Usefulness
from lra.options import PoolOptions
from lra.problem import Batch
from lra.randomness import integers, sent
from lra.state import State


class Buffer(ABC):
    """A store of labelled images of fixed capacity; memory is allocated at the first `add` and never again.

    Args:
        capacity: largest number of images.
        priorities: by which stored images are drawn; uniformly if not given.
    """

    def __init__(self, capacity: int, priorities: Priorities | None = None):
        self.capacity = capacity
        self.priorities = priorities
        self.filled = 0
        self.images: Tensor | None = None
        self.logits: Tensor | None = None

    def __len__(self) -> int:
        """Images held."""
        return self.filled

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Consider a batch for storage."""

    @abstractmethod
    def sample(self, n: int) -> Batch:
        """``n`` stored images with their logits; the buffer must not be empty."""

    def write(self, where: Tensor, batch: Batch) -> None:
        """Store ``batch`` at the positions ``where`` (n,)."""
        if self.images is None or self.logits is None:
            self.images = batch.images.new_empty(self.capacity, *batch.images.shape[1:])
            self.logits = batch.logits.new_empty(self.capacity, *batch.logits.shape[1:])
        where = sent(where, self.images.device)
        self.images[where] = batch.images.detach()
        self.logits[where] = batch.logits.detach()
        if self.priorities is not None:
            self.priorities.admit(where, self.images.device)

    def read(self, where: Tensor) -> Batch:
        """The items at the positions ``where`` (n,).

        Raises:
            IndexError: if nothing has been stored yet.
        """
        if self.images is None or self.logits is None:
            raise IndexError("the buffer is empty: add a batch before sampling")
        where = sent(where, self.images.device)
        return Batch(self.images[where], self.logits[where])

    def classes(self) -> Tensor | None:
        """(N,) int64: the teacher's class of each image held; ``None`` if nothing has been stored yet."""
        return None if self.logits is None else self.logits[: self.filled].argmax(dim=1)

    def by_priority(self, n: int, priorities: Priorities) -> Batch:
        """``n`` stored images with their logits and weights, drawn by priority."""
        where, weights = priorities.draw(n)
        return self.read(where)._replace(weights=weights)

    def relabel(self, answer: Callable[[Tensor], Tensor]) -> None:
        """Replace the stored logits by another teacher's: images (n, C, H, W) -> logits (n, K')."""
        if self.images is None or not self.filled:
            return
        held = Batch(self.images[: self.filled], answer(self.images[: self.filled]))
        self.logits = None
        self.write(torch.arange(self.filled), held)
        if self.priorities is not None:
            self.priorities.reset()

    def state_dict(self) -> State:
        """Contents and counters; only the filled part is stored."""
        held = slice(0, self.filled)
        images = None if self.images is None else self.images[held].clone()
        logits = None if self.logits is None else self.logits[held].clone()
        return {"filled": self.filled, "images": images, "logits": logits} | _saved(self.priorities)

    def load_state_dict(self, state: State) -> None:
        """Restore a state from `state_dict`.

        Raises:
            ValueError: if it holds more images than this buffer can.
        """
        if state["filled"] > self.capacity:
            raise ValueError(f"a buffer of {state['filled']} images does not fit a capacity of {self.capacity}")
        self.filled = state["filled"]
        if state["images"] is not None:
            self.write(torch.arange(self.filled), Batch(state["images"], state["logits"]))
        if self.priorities is not None:
            self.priorities.load_state_dict(state["priorities"])


def _saved(priorities: Priorities | None) -> State:
    return {} if priorities is None else {"priorities": priorities.state_dict()}


class Ring(Buffer):
    """Slots for whole batches, of which the oldest is overwritten: the memory bank of MB-DFKD (Binici et al. 2022).

    Args:
        slots: number of batches (published: 10).
        slot_size: images per slot (published: an eighth of the batch).
        priorities: by which images are drawn from all slots; see `sample` if not given.
    """

    def __init__(self, slots: int, slot_size: int, priorities: Priorities | None = None):
        super().__init__(slots * slot_size, priorities)
        self.slots = slots
        self.slot_size = slot_size
        self.written = 0

    def add(self, batch: Batch) -> None:
        """Put the first ``slot_size`` images of ``batch`` into the next slot; several smaller batches share one."""
        kept = Batch(batch.images[: self.slot_size], batch.logits[: self.slot_size])
        self.write((self.written + torch.arange(len(kept.images))) % self.capacity, kept)
        self.written += len(kept.images)
        self.filled = min(self.written, self.capacity)

    def sample(self, n: int) -> Batch:
        """``n`` images from slots chosen uniformly; one whole slot (as published) if ``n`` is its size."""
        if self.priorities is not None:
            return self.by_priority(n, self.priorities)
        count = -(-n // self.slot_size)
        slots = torch.randint(max(1, self.filled // self.slot_size), (count,))
        where = (slots[:, None] * self.slot_size + torch.arange(self.slot_size)).flatten()
        return self.read(where[:n] % self.filled)

    def state_dict(self) -> State:
        """Contents and the ring's position."""
        return super().state_dict() | {"written": self.written}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.written = state["written"]


def reservoir_places(seen: int, n: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Where algorithm R (Vitter 1985) puts ``n`` newcomers after ``seen`` others: distinct places and their newcomers.

    Returns:
        places (m,) below ``capacity``, and the newcomers (m,) that go there, m ≤ n.
    """
    order = torch.arange(seen, seen + n)
    where = torch.where(order < capacity, order, (torch.rand(n) * (order + 1)).long())
    kept = (where < capacity).nonzero().flatten()
    # Of two newcomers sent to one place the later stays, as if they had come one by one.
    places, inverse = where[kept].unique(return_inverse=True)
    last = torch.zeros(len(places), dtype=torch.long)
    last.scatter_reduce_(0, inverse, torch.arange(len(kept)), "amax", include_self=False)
    return places, kept[last]


class Reservoir(Buffer):
    """A uniform sample of everything ever offered (Vitter 1985, algorithm R, a batch at a time)."""

    def __init__(self, capacity: int, priorities: Priorities | None = None):
        super().__init__(capacity, priorities)
        self.seen = 0

    def add(self, batch: Batch) -> None:
        """Offer a batch; every image seen so far is held with equal probability capacity / seen."""
        places, chosen = reservoir_places(self.seen, len(batch.images), self.capacity)
        chosen = sent(chosen, batch.images.device)
        self.write(places, Batch(batch.images[chosen], batch.logits[chosen]))
        self.seen += len(batch.images)
        self.filled = min(self.capacity, self.seen)

    def sample(self, n: int) -> Batch:
        """``n`` images with replacement, uniformly or by priority."""
        if self.priorities is not None:
            return self.by_priority(n, self.priorities)
        return self.read(torch.randint(self.filled, (n,)))

    def state_dict(self) -> State:
        """Contents and the number of images offered."""
        return super().state_dict() | {"seen": self.seen}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.seen = state["seen"]


class PoolBatch(NamedTuple):
    """Images of a pool, and where they come from."""

    images: Tensor
    """(n, C, H, W) uint8."""
    labels: Tensor
    """(n,) int64: their target classes."""
    births: Tensor
    """(n,) int64: the experiences they come from."""


class ImagePool:
    """All batches that synthesis has made, as bytes, up to a given capacity.

    Images are in one uint8 tensor, with their labels and births; it grows by doubling up to its capacity. It is on the
    device of the first images (CPU or GPU), never in a file. While it grows it needs at most three times the memory of
    its images for a moment, otherwise at most twice.

    Args:
        options: what is kept.
        priorities: by which images are drawn; uniformly if not given.
    """

    def __init__(self, options: PoolOptions, priorities: Priorities | None = None):
        self.priorities = priorities
        self.policy = options.policy
        self.capacity = None if options.policy == "unbounded" else options.capacity
        useful = options.policy == "useful"
        self.usefulness = Usefulness(options.useful_share, options.useful_focus) if useful else None
        self.seen = 0
        self.filled = 0
        self._rows: PoolBatch | None = None

    def __len__(self) -> int:
        """Images held."""
        return self.filled

    def _places(self, n: int, logits: Tensor | None) -> tuple[Tensor, Tensor]:
        """Places (m,), and which of ``n`` newcomers (m,) take them."""
        if self.usefulness is not None and self.capacity is not None:
            if logits is None:
                raise ValueError("a pool of useful images needs the teacher's answers to new ones: give add() logits")
            return self.usefulness.places(logits, self.capacity)
        if self.capacity is None:
            return torch.arange(self.seen, self.seen + n), torch.arange(n)
        if self.policy == "fifo":
            # The places of the oldest images, going round; of too many newcomers the last.
            chosen = torch.arange(max(0, n - self.capacity), n)
            return (self.seen + chosen) % self.capacity, chosen
        return reservoir_places(self.seen, n, self.capacity)

    def add(self, images: Tensor, labels: Tensor, birth: int, logits: Tensor | None = None) -> None:
        """Add the images of an experience.

        Args:
            images: (n, C, H, W) uint8; see `lra.images.to_bytes`.
            labels: (n,).
            birth: index of the experience.
            logits: (n, K) of the teacher; needed in a pool of useful images.

        Raises:
            ValueError: for such a pool, without logits.
        """
        places, chosen = (sent(where, images.device) for where in self._places(len(images), logits))
        self.seen += len(images)
        self.filled = self.seen if self.capacity is None else min(self.seen, self.capacity)
        rows = self._rows = self._grown(PoolBatch(images, labels, torch.full_like(labels, birth)))
        rows.images[places] = images[chosen]
        rows.labels[places] = labels[chosen]
        rows.births[places] = birth
        if self.priorities is not None:
            self.priorities.admit(places, images.device)

    def draw(self, n: int) -> tuple[PoolBatch, Tensor | None]:
        """``n`` images with replacement, and their weights (n,) if they are drawn by priority.

        Raises:
            IndexError: if nothing has been added yet.
        """
        if self.priorities is None or self._rows is None:
            return self.sample(n), None
        where, weights = self.priorities.draw(n)
        return PoolBatch(*(column[where] for column in self._rows)), weights

    def sample(self, n: int) -> PoolBatch:
        """``n`` images, uniformly with replacement.

        Raises:
            IndexError: if nothing has been added yet.
        """
        if self._rows is None or not self.filled:
            raise IndexError("the pool is empty: add images before sampling")
        where = integers(self.filled, n, device=self._rows.images.device)
        return PoolBatch(*(column[where] for column in self._rows))

    def contents(self) -> PoolBatch | None:
        """Everything held, without a copy; ``None`` before the first `add`."""
        return None if self._rows is None else PoolBatch(*(column[: self.filled] for column in self._rows))

    def classes(self) -> Tensor | None:
        """(N,) int64: classes of the images held; the teacher's in a pool of useful images, otherwise their targets."""
        if self.usefulness is not None:
            return self.usefulness.predicted
        held = self.contents()
        return None if held is None else held.labels

    def _grown(self, like: PoolBatch) -> PoolBatch:
        """Columns with room for `filled` rows of the kind of ``like``, the old ones copied."""
        if self._rows is not None and len(self._rows.labels) >= self.filled:
            return self._rows
        room = 2 ** (self.filled - 1).bit_length()
        room = min(room, self.capacity or room)
        columns = PoolBatch(*(column.new_empty(room, *column.shape[1:]) for column in like))
        if self._rows is not None:
            for new, old in zip(columns, self._rows, strict=True):
                new[: len(old)] = old
        return columns

    def state_dict(self) -> State:
        """The images held, and how many were offered."""
        held = self.contents()
        rows = None if held is None else [column.clone() for column in held]
        useful = {} if self.usefulness is None else {"usefulness": self.usefulness.state_dict()}
        return {"seen": self.seen, "rows": rows} | useful | _saved(self.priorities)

    def load_state_dict(self, state: State) -> None:
        """Restore a state from `state_dict`.

        Raises:
            ValueError: if it holds more images than this pool can.
        """
        rows = state["rows"]
        self.seen, self.filled = state["seen"], 0 if rows is None else len(rows[0])
        if self.filled > (self.capacity or self.filled):
            raise ValueError(f"a pool of {self.filled} images does not fit a capacity of {self.capacity}")
        self._rows = None if rows is None else PoolBatch(*(column.clone() for column in rows))
        if self.priorities is not None:
            self.priorities.load_state_dict(state["priorities"])
        if self.usefulness is not None:
            self.usefulness.load_state_dict(state["usefulness"])
