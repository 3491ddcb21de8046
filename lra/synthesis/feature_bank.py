"""A store of the features of earlier synthetic images, to be told apart from new ones (CMI's memory bank)."""

import torch
from torch import Tensor

from lra.state import State


class FeatureBank:
    """First in, first out; memory is taken as the bank fills, by doubling, up to its capacity.

    The released bank draws nothing at the moment it becomes exactly full, from which an untrained batch follows;
    and it wants a capacity that is a multiple of the batch. This one has neither trait.

    Args:
        capacity: rows held.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.pushed = 0
        self._rows: Tensor | None = None

    def __len__(self) -> int:
        """Rows held."""
        return min(self.pushed, self.capacity)

    @property
    def rows(self) -> Tensor:
        """All rows held (m, d), in place: row p is the latest stored at a count of p modulo the capacity.

        Raises:
            IndexError: if nothing has been stored yet.
        """
        if self._rows is None:
            raise IndexError("the feature bank is empty: add features before reading it")
        return self._rows[: len(self)]

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """Store ``rows`` (n, d), the oldest making room.

        Raises:
            ValueError: if there are more than the bank holds.
        """
        if len(rows) > self.capacity:
            raise ValueError(f"{len(rows)} features do not fit a bank of {self.capacity}: raise its capacity")
        where = torch.arange(self.pushed, self.pushed + len(rows)) % self.capacity
        self.pushed += len(rows)
        self._reserve(rows)[where.to(rows.device)] = rows.detach()

    def sample(self, n: int) -> Tensor:
        """Up to ``n`` rows (m, d) without repetition: all there are, where there are fewer.

        Raises:
            IndexError: if nothing has been stored yet.
        """
        if self._rows is None:
            raise IndexError("the feature bank is empty: add features before sampling")
        where = torch.randperm(len(self))[:n]
        return self._rows[where.to(self._rows.device)]

    def _reserve(self, like: Tensor) -> Tensor:
        held = 0 if self._rows is None else len(self._rows)
        if self._rows is None or held < len(self):
            grown = like.new_empty(min(self.capacity, 2 ** (len(self) - 1).bit_length()), like.shape[1])
            if self._rows is not None:
                grown[:held] = self._rows
            self._rows = grown
        return self._rows

    def state_dict(self) -> State:
        """The rows held, in place, and how many were ever stored."""
        return {"pushed": self.pushed, "rows": None if self._rows is None else self._rows[: len(self)].clone()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`.

        Raises:
            ValueError: if it holds more than this bank can.
        """
        rows = state["rows"]
        if rows is not None and len(rows) > self.capacity:
            raise ValueError(f"{len(rows)} features do not fit a bank of {self.capacity}: raise its capacity")
        self.pushed, self._rows = state["pushed"], None
        if rows is not None:
            self._reserve(rows)[: len(rows)] = rows
