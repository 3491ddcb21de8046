"""Closed-form second derivatives, switched in for a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def closed_form(active: bool = True) -> Iterator[None]:
    """To come."""
    yield
