"""Markdown tables."""

from collections.abc import Collection, Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """A pipe table: columns whose index is among ``words`` to the left, numbers to the right; cells may hold pipes."""
    rule = ["---" if index in words else "---:" for index in range(len(head))]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *escaped))
