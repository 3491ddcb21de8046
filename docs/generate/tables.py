"""Tables in Markdown; and groups of options as such: name, values, default, meaning, in their own docstrings' words."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import yaml

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
    schema = group.model_json_schema()
    for name in names:
        field = group.model_fields[name]
        if isinstance(field.default, Options):
            inner = type(field.default)
            yield from _cells(inner, list(inner.model_fields), f"{prefix}{name}.")
            continue
        values = _values(schema["properties"][name], schema.get("$defs", {}))
        yield [code(prefix + name), values, code(_written(field.default)), meaning(group, name)]


def meaning(group: type[Options], name: str) -> str:
    """What an option means: its docstring, or that of the class that first declares it, or nothing."""
    for owner in group.__mro__:
        if issubclass(owner, Options) and name in _docstrings(owner):
            return " ".join(_docstrings(owner)[name].split())
    return ""


@cache
def _docstrings(owner: type[Options]) -> dict[str, str]:
    """The strings that stand under a class's fields."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = ast.literal_eval(below.value)
    return found


def _written(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def _values(schema: Mapping[str, Any], groups: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "$ref" in schema:
        return _values(groups[schema["$ref"].rsplit("/", 1)[-1]], groups)
    if "anyOf" in schema:
        return " or ".join(_values(choice, groups) for choice in schema["anyOf"])
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if schema.get("type") == "array":
        inside = schema.get("prefixItems") or [schema.get("items", {})]
        return "list of " + ", ".join(_values(item, groups) for item in inside)
    name = {"null": "`null`", "boolean": "`true`, `false`"}.get(schema.get("type", ""), schema.get("type", "anything"))
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([name, ", ".join(bounds)]).strip()
