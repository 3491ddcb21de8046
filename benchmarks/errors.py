"""What goes wrong on a user's side: one line naming the thing, the value and the remedy, and an exit code."""

import difflib
from collections.abc import Iterable
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


def nearest(wrong: str, known: Iterable[str]) -> str:
    """The known name most like ``wrong``."""
    return difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.0)[0]
