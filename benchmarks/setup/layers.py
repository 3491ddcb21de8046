"""Layers of a configuration: read, written in full, and laid over one another."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lra.benchmarks.errors import LraError, UsageError, concerning
from lra.benchmarks.setup.checking import WrongOption, meant
from lra.benchmarks.setup.config import SCALARS, RunConfig, Tree
from lra.benchmarks.untrusted import NotPlain, parse_yaml


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """``above`` over ``below``, section by section; another replay starts from its own defaults."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            # Options given without a name are for whichever replay is named above them.
            other = key == "replay" and "name" in old and value.get("name", old["name"]) != old["name"]
            result[key] = dict(value) if other else merged(old, value)
        else:
            result[key] = value
    return result


def expanded(layer: Mapping[str, Any]) -> Tree:
    """Write the short forms ``replay: memory``, ``meta: true``, ``data: digits`` and the like in full."""
    short = {"replay": "name", "meta": "enabled", "data": "name", "student": "network", "teacher": "network"}
    tree: Tree = {}
    for key, value in layer.items():
        if not isinstance(key, str):
            raise UsageError(f"unknown option {key!r}: options have names")
        if key in short and not isinstance(value, Mapping):
            tree[key] = {short[key]: value}
        elif key in RunConfig.model_fields:
            if key not in SCALARS and not isinstance(value, Mapping):
                raise WrongOption(f"{key} = {value!r}: a section of options is expected, such as {key}: {{...}}", key)
            tree[key] = dict(value) if isinstance(value, Mapping) else value
        elif key != "source":
            path = ".".join([key, *map(str, value)][:2]) if isinstance(value, Mapping) else key
            raise WrongOption(f"unknown option {path!r}; {meant(path)}", key)
    return tree


@contextmanager
def blaming(origin: str, layer: Tree, above: Sequence[Tree]) -> Iterator[None]:
    """Say of a wrong option that it is of ``layer``, from ``origin``, if it is there and not in those ``above`` it."""
    try:
        yield
    except LraError as error:
        if _holds(layer, error.option) and not any(_holds(other, error.option) for other in above):
            with concerning(origin):
                raise
        raise


def _holds(layer: Tree, option: str) -> bool:
    """Whether a layer has a value at the path of an option."""
    found: object = layer
    for key in option.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return False
        found = found[key]
    return True


def parse_assignment(text: str) -> Tree:
    """``section.key=value`` as a tree; the value is read as YAML.

    Raises:
        UsageError: for anything else.
    """
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set {text!r}: write it as section.key=value, such as student.lr=0.05")
    try:
        leaf = parse_yaml(value)
    except NotPlain:
        raise UsageError(f"--set {text!r}: the value is no YAML scalar, list or mapping") from None
    for key in reversed(keys):
        leaf = {key: leaf}
    return leaf
