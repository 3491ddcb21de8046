"""Checks a configuration in full, before anything happens; what is wrong is said in one line."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from lra.benchmarks.errors import UsageError, nearest
from lra.benchmarks.setup.config import AUTO, RunConfig, Tree
from lra.networks import instead, is_known
from lra.networks.foreign import is_foreign
from lra.options import Options
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS


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
        raise UsageError(explain(error, "synthesis", method.Options, others)) from None
    if name in REPLAYS:
        try:
            retained = REPLAYS[name].model_validate(replay).model_dump(mode="json")
        except ValidationError as error:
            raise UsageError(explain(error, "replay", REPLAYS[name], REPLAYS)) from None
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
        raise UsageError(explain(error, "", RunConfig)) from None
    for key, network in (("student", config.student.network), ("teacher", config.teacher.network)):
        if key == "teacher" and network == AUTO and config.teacher.file:
            continue
        if not is_foreign(network) and not is_known(network):
            raise UsageError(f"unknown {key}.network {network!r}; {instead(network)}")
    return config


def known_name(key: str, name: object, known: Iterable[str]) -> str:
    """``name`` if it is among the ``known`` ones; `UsageError` otherwise."""
    if not isinstance(name, str) or name not in known:
        raise UsageError(f"unknown {key} {name!r}; did you mean {nearest(str(name), known)!r}?")
    return name


def explain(
    error: ValidationError, section: str, options: type[Options], others: Mapping[str, type[Options]] | None = None
) -> str:
    """One line on the first thing wrong: key, value, remedy; ``others`` are what might have been chosen instead."""
    first = error.errors()[0]
    path = ".".join([*filter(None, [section]), *map(str, first["loc"])])
    if first["type"] == "extra_forbidden":
        owners = [name for name, other in (others or {}).items() if first["loc"][0] in other.model_fields]
        if owners and len(first["loc"]) == 1:
            return f"unknown option {path!r}: it is of {', '.join(owners)}; choose that, or leave the option out"
        known = _fields(options, first["loc"][:-1])
        return f"unknown option {path!r}; did you mean {nearest(str(first['loc'][-1]), known)!r}?"
    if first["type"] == "value_error":
        return f"{path}: {first['ctx']['error']}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}{more}"


def _fields(options: Any, path: tuple[int | str, ...]) -> list[str]:
    for step in path:
        options = options.model_fields[step].annotation
    return list(options.model_fields)
