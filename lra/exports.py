"""Lazy exports: a package offers names whose modules are imported only when a name is used."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def offered(package: str, where: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: its name.
        where: the module of each name that it offers.
    """

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(where[name]), name)

    def names() -> list[str]:
        return sorted([*vars(import_module(package)), *where])

    return get, names
