"""Layers of a configuration: expanded, merged and checked, with one line for any error."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from lra.benchmarks.errors import LraError, UsageError, concerning, suggestion
from lra.benchmarks.files import NotPlain, parse_yaml
from lra.benchmarks.setup.config import AUTO, SCALARS, RunConfig, Tree
from lra.networks import instead, is_known
from lra.networks.foreign import is_foreign
from lra.options import Options
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS


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
    """A context that names the ``origin`` of a wrong option, if it is in ``layer`` and not in those ``above`` it."""
    try:
        yield
    except LraError as error:
        replaced = any(_holds(other, option) for other in above for option in error.options)
        if error.options and _holds(layer, error.options[0]) and not replaced:
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
    try:
        return assigned(path.strip() if equals else "", parse_yaml(value), text)
    except NotPlain:
        raise UsageError(f"--set {text!r}: the value is not a YAML scalar, list or mapping") from None


def assigned(path: str, value: Any, said: str = "") -> Tree:
    """The tree in which only the option at ``path``, such as ``student.lr``, has a value.

    Raises:
        UsageError: for an invalid path; ``said`` is what was typed, if that is more.
    """
    keys = path.split(".")
    if not all(keys):
        raise UsageError(f"--set {said or path!r}: write it as section.key=value, such as student.lr=0.05")
    for key in reversed(keys):
        value = {key: value}
    return value


class WrongOption(UsageError):
    """An option that is unknown, has a wrong value, or does not fit others.

    Args:
        said: the error in one line.
        options: its path, such as ``student.lr``, and those of the others.
    """

    def __init__(self, said: str, *options: str):
        super().__init__(said)
        self.options = options


def checked(tree: Tree) -> RunConfig:
    """The configuration in ``tree``, every section checked by its own options.

    Raises:
        UsageError: for anything unknown, of the wrong type or out of range, in one line.
    """
    sections: Tree = {name: {} for name in ("data", "teacher", "student", "meta", "schedule", "evaluation", "plugin")}
    method = METHODS[tree["method"]]
    replay = dict(tree["replay"])
    name = replay.pop("name")
    try:
        synthesis = method.Options.model_validate(tree.get("synthesis", {}))
    except ValidationError as error:
        others = {name: other.Options for name, other in METHODS.items()}
        raise _wrong(error, "synthesis", method.Options, others) from None
    if name in REPLAYS:
        try:
            retained = REPLAYS[name].model_validate(replay).model_dump(mode="json")
        except ValidationError as error:
            raise _wrong(error, "replay", REPLAYS[name], REPLAYS) from None
    else:
        # An installed plugin's options are its own affair, until it is built.
        retained = replay
    whole = (
        sections
        | tree
        | {
            "synthesis": synthesis.model_dump(mode="json"),
            "replay": {"name": name} | retained,
        }
    )
    try:
        config = RunConfig.model_validate(whole)
    except ValidationError as error:
        raise _wrong(error, "", RunConfig) from None
    for key, network in (("student", config.student.network), ("teacher", config.teacher.network)):
        if key == "teacher" and network == AUTO and config.teacher.file:
            continue
        if not is_foreign(network) and not is_known(network):
            raise WrongOption(f"unknown {key}.network {network!r}; {instead(network)}", f"{key}.network")
    return config


def known_name(key: str, name: object, known: Iterable[str], option: str = "") -> str:
    """``name`` if it is among the ``known`` ones; otherwise `WrongOption`, for the option ``key`` or ``option``."""
    if not isinstance(name, str) or name not in known:
        said = f"unknown {key} {name!r}; {suggestion(str(name), known, f'lra-bench list {key}s')}"
        raise WrongOption(said, option or key)
    return name


def _wrong(
    error: ValidationError, section: str, options: type[Options], others: Mapping[str, type[Options]] | None = None
) -> WrongOption:
    return WrongOption(explain(error, section, options, others), _path(error, section))


def _path(error: ValidationError, section: str) -> str:
    return ".".join([*filter(None, [section]), *map(str, error.errors()[0]["loc"])])


def explain(
    error: ValidationError, section: str, options: type[Options], others: Mapping[str, type[Options]] | None = None
) -> str:
    """One line on the first error: key, value, remedy; ``others`` are possible alternatives."""
    first = error.errors()[0]
    path = _path(error, section)
    if first["type"] == "extra_forbidden":
        owners = [name for name, other in (others or {}).items() if first["loc"][0] in other.model_fields]
        if owners and len(first["loc"]) == 1:
            return f"unknown option {path!r}: it is of {', '.join(owners)}; choose that, or leave the option out"
        known = [".".join(filter(None, [section, key])) for key in keys_of(options)]
        return f"unknown option {path!r}; {meant(path, known, beyond=bool(section) or options is RunConfig)}"
    if first["type"] == "value_error":
        return f"{path}: {first['ctx']['error']}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}{more}"


def keys_of(options: Any, prefix: str = "") -> list[str]:
    """The full paths of all options in a group, and in the groups inside it."""
    found = []
    for name, field in options.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Options):
            found += keys_of(inner, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def all_keys() -> list[str]:
    """Every option of a configuration, whatever the method and the replay."""
    own = [key for key in keys_of(RunConfig) if key not in ("synthesis", "replay")]
    groups: list[tuple[str, type[Options]]] = [("synthesis", method.Options) for method in METHODS.values()]
    groups += [("replay", replay) for replay in REPLAYS.values()]
    return list(dict.fromkeys([*own, *(f"{section}.{key}" for section, group in groups for key in keys_of(group))]))


def meant(path: str, first: Sequence[str] = (), beyond: bool = True) -> str:
    """Suggestions for an unknown option: full paths, first among the ``first`` ones, then among all ``beyond``."""
    groups = [first, all_keys()] if beyond else [first]
    for known in groups:
        if close := difflib.get_close_matches(path, known, n=1, cutoff=0.8):
            return f"did you mean {close[0]!r}?"
    for cutoff in (1.0, 0.8):
        for known in groups:
            alike = difflib.get_close_matches(_last(path), {_last(key) for key in known}, n=1, cutoff=cutoff)
            if alike:
                whole = [key for key in known if _last(key) == alike[0]]
                return f"did you mean {' or '.join(map(repr, whole[:4]))}?"
    section = path.rpartition(".")[0]
    near = [key for key in first if not section or key.startswith(f"{section}.")]
    near = near or list(RunConfig.model_fields)
    if close := difflib.get_close_matches(path, near, n=1, cutoff=0.8):
        return f"did you mean {close[0]!r}?"
    return f"choose from {', '.join(near)}"


def _last(key: str) -> str:
    return key.rpartition(".")[2]
