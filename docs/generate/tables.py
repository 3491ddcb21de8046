"""Markdown tables of words."""

from collections.abc import Iterable, Sequence

from lra.benchmarks.text import markdown_table


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table; cells are Markdown, and may hold pipes."""
    return markdown_table(head, rows, words=range(len(head))) + "\n"


def code(value: object) -> str:
    """``value`` as code, or nothing for none."""
    return "" if value is None or value == "" else f"`{value}`"
