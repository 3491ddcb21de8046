"""A description of every option of a configuration, with its name, values and meaning: as rows, and as JSON Schema.

The meaning of an option is the docstring under it in its class, and is read from there: nothing is written twice.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, get_args

import yaml

from lra import __version__
from lra.benchmarks.setup.config import RunConfig
from lra.options import Options
from lra.strategies.increment.options import IncrementOptions
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The dialect of JSON Schema."""

INCREMENT = "increment"
"""The name of the options that ``lra-bench increment --set`` takes."""


class Described(NamedTuple):
    """An option.

    Attributes:
        key: as ``--set`` takes it.
        values: the permitted values, in words.
        default: as YAML; empty if there is none.
        meaning: from its docstring; empty if it has none.
    """

    key: str
    values: str
    default: str
    meaning: str


Mark = Callable[[object], str]
"""Writes a value among words."""


def described(
    group: type[Options], prefix: str = "", names: Sequence[str] | None = None, mark: Mark = str
) -> Iterator[Described]:
    """The options of a group, and of each group within it.

    Args:
        group: the class of options.
        prefix: what stands before each name when it is set, such as ``synthesis.``.
        names: which of them; all if not given.
        mark: how values are written.
    """
    schema = group.model_json_schema()
    for name in group.model_fields if names is None else names:
        field = group.model_fields[name]
        if isinstance(field.default, Options):
            yield from described(type(field.default), f"{prefix}{name}.", mark=mark)
            continue
        values = _values(schema["properties"][name], schema.get("$defs", {}), mark)
        default = "" if field.is_required() else yaml.safe_dump(field.default, default_flow_style=True).split("\n")[0]
        yield Described(prefix + name, values, default, meaning(group, name))


def sections() -> dict[str, type[Options]]:
    """The sections of a configuration that hold the same options whatever the method and the replay."""
    return {name: kind for name, field in RunConfig.model_fields.items() for kind in _groups_at(field.annotation)}


def groups() -> dict[str, tuple[str, type[Options]]]:
    """The groups of options that can be listed: sections, methods, replays and `INCREMENT`; each with its prefix."""
    return {
        **{name: (f"{name}.", group) for name, group in sections().items()},
        **{name: ("synthesis.", method.Options) for name, method in METHODS.items()},
        **{name: ("replay.", options) for name, options in REPLAYS.items()},
        INCREMENT: ("", IncrementOptions),
    }


def alone() -> Iterator[Described]:
    """The options of a configuration that are in no section."""
    names = [name for name in RunConfig.model_fields if name not in sections() and name not in ("synthesis", "replay")]
    return described(RunConfig, names=[name for name in names if name != "code"])


def keys(method: str | None = None, replay: str | None = None) -> list[str]:
    """Every key that ``--set`` takes for a run: those of one method and replay, or of all."""
    left_out = {INCREMENT} | ({*METHODS} - {method} if method in METHODS else set())
    left_out |= {*REPLAYS} - {replay} if replay in REPLAYS else set()
    found = [option.key for option in alone()]
    for name, (prefix, group) in groups().items():
        found += [option.key for option in described(group, prefix)] if name not in left_out else []
    return list(dict.fromkeys(found))


def meaning(group: type[Options], name: str) -> str:
    """The meaning of an option: its docstring, or the one in the class that first declares it, or nothing."""
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


def _values(schema: Mapping[str, Any], within: Mapping[str, Any], mark: Mark) -> str:
    """The values that a JSON schema allows, in words."""
    if "$ref" in schema:
        return _values(within[schema["$ref"].rsplit("/", 1)[-1]], within, mark)
    if "anyOf" in schema:
        return " or ".join(_values(choice, within, mark) for choice in schema["anyOf"])
    if "const" in schema:
        return mark(schema["const"])
    if "enum" in schema:
        return ", ".join(map(mark, schema["enum"]))
    if schema.get("type") == "array":
        inside = schema.get("prefixItems") or [schema.get("items", {})]
        return "list of " + ", ".join(_values(item, within, mark) for item in inside)
    plain = {"null": mark("null"), "boolean": f"{mark('true')}, {mark('false')}"}
    name = plain.get(schema.get("type", ""), schema.get("type", "anything"))
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([name, ", ".join(bounds)]).strip()


SHORT = {"replay": "string", "meta": "boolean", "data": "string", "student": "string", "teacher": "string"}
"""Sections that a configuration file may write as one value, and the type of that."""


def json_schema() -> dict[str, Any]:
    """JSON Schema of a configuration file of this version, for editors: every key, its values, default and meaning.

    The options of a method or a replay are checked if the file names it; those of a preset or a plugin are accepted.
    """
    within: dict[str, Any] = {}
    whole = _hoisted(RunConfig, "run", within)
    properties = within.pop(whole)["properties"] | {"kind": {"const": "run"}, "source": {"type": "string"}}
    for name, kind in SHORT.items():
        properties[name] = {"anyOf": [{"type": kind}, properties.get(name, {"type": "object"})]}
    properties["method"] = {"enum": [*METHODS], "description": "How samples are made."}
    rules = [
        {
            "if": {"properties": {"method": {"const": name}}, "required": ["method"]},
            "then": {
                "properties": {"synthesis": {"$ref": f"#/$defs/{_hoisted(method.Options, f'method.{name}', within)}"}}
            },
        }
        for name, method in METHODS.items()
    ]
    for name, options in REPLAYS.items():
        replay = within[_hoisted(options, f"replay.{name}", within)]
        replay["properties"]["name"] = {"const": name}
        named = {"properties": {"name": {"const": name}}, "required": ["name"]}
        rules.append(
            {
                "if": {"properties": {"replay": {"type": "object"} | named}, "required": ["replay"]},
                "then": {"properties": {"replay": {"$ref": f"#/$defs/replay.{name}"}}},
            }
        )
    return {
        "$schema": DIALECT,
        "title": f"Configuration of lra-bench run, version {__version__}",
        "description": inspect.getdoc(RunConfig),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "allOf": rules,
        "$defs": within,
    }


def _hoisted(group: type[Options], name: str, within: dict[str, Any]) -> str:
    """Put a group's schema, and those of the groups in it, among the definitions; returns its name there.

    Nothing is required: what a file leaves out has a default.
    """
    classes = {inner.__name__: inner for inner in _groups_in(group)}
    schema = group.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    inner = schema.pop("$defs", {})
    for place, found, owner in ((name, schema, group), *((f"{name}.{key}", inner[key], classes[key]) for key in inner)):
        found.pop("required", None)
        for key, option in found["properties"].items():
            option.pop("title", None)
            if said := meaning(owner, key):
                option["description"] = said
        within[place] = found
    return name


def _groups_at(annotation: Any) -> list[type[Options]]:
    """The group of options that a field holds, or may hold."""
    kinds = (annotation, *get_args(annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Options)]


def _groups_in(group: type[Options]) -> Iterator[type[Options]]:
    for field in group.model_fields.values():
        for kind in _groups_at(field.annotation):
            yield kind
            yield from _groups_in(kind)


def listing(found: Sequence[Described], width: int) -> str:
    """Options as text: each with its values and default, and its meaning below."""
    lines = []
    for option in found:
        default = f"  [{option.default}]" if option.default else ""
        lines.append(f"{option.key}  {option.values}{default}")
        lines += textwrap.wrap(option.meaning, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)
