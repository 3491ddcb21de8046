"""The one loop of the toolkit: a sequence in which each item depends on the outcome of those before it.

Generator updates within a task, each made against the current student, are such a loop; so are tasks, each starting
from what the last one left.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ClosedLoop(ABC, Generic[T]):
    """Opens its items lazily, in order; nothing is kept of past ones.

    A second iteration continues where the first stopped, which is also how a resumed run continues.

    Args:
        length: number of items in all.

    Attributes:
        position: items completed.
        ended: whether no more items are to be opened.
        at_rest: called without arguments between items, when nothing uses the last one any more.
    """

    def __init__(self, length: int):
        self.length = length
        self.position = 0
        self.ended = False
        self.at_rest: Callable[[], None] = lambda: None

    @abstractmethod
    def open(self) -> T:
        """The item at `position`."""

    def __iter__(self) -> Iterator[T]:
        """Open the remaining items one by one."""
        while self.position < self.length and not self.ended:
            yield self.open()
            self.position += 1
            self.at_rest()
