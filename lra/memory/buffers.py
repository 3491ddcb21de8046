"""What replay remembers: bounded stores of images with the teacher's logits, in preallocated tensors."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from lra.problem import Batch
from lra.state import State


class Buffer(ABC):
    """A store of labelled images of fixed capacity; memory is taken at the first `add`, never again."""

    def __init__(self, capacity: int):
        self.capacity = capacity
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
        self.images[where] = batch.images.detach()
        self.logits[where] = batch.logits.detach()

    def read(self, where: Tensor) -> Batch:
        """The items at the positions ``where`` (n,).

        Raises:
            IndexError: if nothing has been stored yet.
        """
        if self.images is None or self.logits is None:
            raise IndexError("the buffer is empty: add a batch before sampling")
        return Batch(self.images[where], self.logits[where])

    def relabel(self, answer: Callable[[Tensor], Tensor]) -> None:
        """Let another teacher answer for what is stored: images (n, C, H, W) -> logits (n, K')."""
        if self.images is None or not self.filled:
            return
        held = Batch(self.images[: self.filled], answer(self.images[: self.filled]))
        self.logits = None
        self.write(torch.arange(self.filled), held)

    def state_dict(self) -> State:
        """Contents and counters; only the filled part is stored."""
        held = slice(0, self.filled)
        images = None if self.images is None else self.images[held].clone()
        logits = None if self.logits is None else self.logits[held].clone()
        return {"filled": self.filled, "images": images, "logits": logits}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`.

        Raises:
            ValueError: if it holds more than this buffer can.
        """
        if state["filled"] > self.capacity:
            raise ValueError(f"a buffer of {state['filled']} images does not fit a capacity of {self.capacity}")
        self.filled = state["filled"]
        if state["images"] is not None:
            self.write(torch.arange(self.filled), Batch(state["images"], state["logits"]))


class Ring(Buffer):
    """Slots of whole batches, the oldest overwritten: the memory bank of MB-DFKD (Binici et al. 2022).

    Args:
        slots: batches held (published: 10).
        slot_size: images per slot (published: an eighth of the batch).
    """

    def __init__(self, slots: int, slot_size: int):
        super().__init__(slots * slot_size)
        self.slots = slots
        self.slot_size = slot_size
        self.pushes = 0

    def add(self, batch: Batch) -> None:
        """Put the first ``slot_size`` images of ``batch`` into the next slot.

        Raises:
            ValueError: if the batch is smaller than a slot.
        """
        if len(batch.images) < self.slot_size:
            raise ValueError(
                f"a slot takes {self.slot_size} images and the batch has {len(batch.images)}: lower replay.fraction"
            )
        start = self.pushes % self.slots * self.slot_size
        where = torch.arange(start, start + self.slot_size)
        self.write(where, Batch(batch.images[: self.slot_size], batch.logits[: self.slot_size]))
        self.pushes += 1
        self.filled = min(self.pushes, self.slots) * self.slot_size

    def sample(self, n: int) -> Batch:
        """``n`` images out of slots chosen uniformly, one whole slot (as published) if ``n`` is its size."""
        count = -(-n // self.slot_size)
        slots = torch.randint(self.filled // self.slot_size, (count,))
        where = (slots[:, None] * self.slot_size + torch.arange(self.slot_size)).flatten()
        return self.read(where[:n])

    def state_dict(self) -> State:
        """Contents and the ring's position."""
        return super().state_dict() | {"pushes": self.pushes}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.pushes = state["pushes"]


def reservoir_places(seen: int, n: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Where algorithm R (Vitter 1985) puts ``n`` newcomers after ``seen`` others: distinct places, and who takes each.

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

    def __init__(self, capacity: int):
        super().__init__(capacity)
        self.seen = 0

    def add(self, batch: Batch) -> None:
        """Every image seen so far stays with equal probability capacity / seen."""
        places, chosen = reservoir_places(self.seen, len(batch.images), self.capacity)
        self.write(places, Batch(batch.images[chosen], batch.logits[chosen]))
        self.seen += len(batch.images)
        self.filled = min(self.capacity, self.seen)

    def sample(self, n: int) -> Batch:
        """``n`` images, uniformly with replacement."""
        return self.read(torch.randint(self.filled, (n,)))

    def state_dict(self) -> State:
        """Contents and the number of images offered."""
        return super().state_dict() | {"seen": self.seen}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.seen = state["seen"]
