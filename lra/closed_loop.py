"""The one loop of the toolkit: things that come one after another, each made from what became of those before it.

Generator updates within a task, each made against the student as it stands, are such a loop; so are tasks, each
starting from what the last one left.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ClosedLoop(ABC, Generic[T]):
    """Opens its items lazily, in order; nothing of a past one is kept.

    A second iteration goes on where the first stopped, which is also how something resumed continues.

    Args:
        length: items in all.

    Attributes:
        position: items completed.
        ended: whether no more are to be opened.
        at_rest: called with nothing between items, when everything has finished with the last one.
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
