"""Tables in Markdown; and groups of options as such: name, values, default, meaning, in their own docstrings' words."""

import inspect
from collections.abc import Iterable, Iterator, Sequence

from lra.benchmarks.setup.schema import described
from lra.benchmarks.text import markdown_table
from lra.options import Options

HEAD = ("option", "values", "default", "meaning")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table; cells are Markdown, and may hold pipes."""
    return markdown_table(head, rows, words=range(len(head))) + "\n"


def code(value: object) -> str:
    """``value`` as code, or nothing for none."""
    return "" if value is None or value == "" else f"`{value}`"


def options_table(group: type[Options], prefix: str) -> str:
    """All options of a group in one table; see `tables`."""
    return table(HEAD, _cells(group, list(group.model_fields), prefix))


def options_tables(group: type[Options], prefix: str) -> str:
    """All options of a group, a table for each class that declares some, the most special one first.

    Args:
        group: the class of options.
        prefix: what stands before each name when it is set, such as ``synthesis.``.
    """
    pages = []
    for owner, names in declared(group).items():
        title = "Its own" if owner is group else f"Shared: {owner.__name__}"
        rows = table(HEAD, _cells(group, names, prefix))
        pages.append(f"### {title}\n\n{inspect.getdoc(owner)}\n\n{rows}")
    return "\n".join(pages)


def declared(group: type[Options]) -> dict[type[Options], list[str]]:
    """Fields of a group by the class that has the last word on each."""
    classes = [c for c in group.__mro__ if issubclass(c, Options)]
    owners: dict[type[Options], list[str]] = {}
    for name in group.model_fields:
        owner = next(c for c in classes if name in inspect.get_annotations(c))
        owners.setdefault(owner, []).append(name)
    return {c: owners[c] for c in classes if c in owners}


def _cells(group: type[Options], names: list[str], prefix: str) -> Iterator[list[str]]:
    """A row for each option, and for each of a group within the group."""
    for option in described(group, prefix, names, code):
        yield [code(option.key), option.values, code(option.default), option.meaning]
