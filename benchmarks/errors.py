"""What goes wrong on a user's side: one line naming the thing, the value and the remedy, and an exit code."""

from typing import ClassVar


class LraError(Exception):
    """The run failed."""

    code: ClassVar[int] = 1


class UsageError(LraError):
    """A wrong option, key, value or combination."""

    code = 2


class MissingInput(LraError):
    """A file, folder or package that is needed is not there."""

    code = 3


class Resumable(LraError):
    """The run stopped, and can be resumed."""

    code = 75
