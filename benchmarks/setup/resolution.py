"""Resolve flags and files to a checked configuration.

Defaults < settings of the method's paper < scale that fits the data < preset < config file < ``--set`` < flags.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lra import __version__
from lra.benchmarks.errors import LraError, MissingInput, UsageError, concerning
from lra.benchmarks.files import NotPlain, parse_yaml
from lra.benchmarks.records import DISTILLED
from lra.benchmarks.setup.config import EVALUATIONS, DataOptions, RunConfig, Tree
from lra.benchmarks.setup.flags import FLAGS
from lra.benchmarks.setup.layers import (
    WrongOption,
    assigned,
    blaming,
    checked,
    expanded,
    known_name,
    merged,
    parse_assignment,
)
from lra.benchmarks.setup.places import placed, placed_layer
from lra.benchmarks.setup.presets import (
    OURS,
    PUBLISHED,
    Facts,
    Scale,
    facts_of,
    scale_for,
    scales,
    settings_of,
    source_of,
)
from lra.benchmarks.setup.user_code import importable, modules_in
from lra.networks import is_known
from lra.networks.foreign import is_foreign
from lra.strategies.extensions import names_class, replay_names
from lra.strategies.method import Method
from lra.strategies.methods import METHODS
from lra.strategies.retention import PAPER, REPLAYS


class NothingRetained(WrongOption):
    """The LRA step is requested without a replay."""


def configuration(base: Path | None = None, code: Mapping[str, str] | None = None, **given: Any) -> RunConfig:
    """Resolve flags.

    Args:
        base: the folder of the file they are from; relative paths are looked up there first, then in the working
            directory.
        code: if they are from a record, the folders of its modules; nothing in it counts as typed by the user.
        given: values by the names in `FLAGS`; ``None`` means not given. ``set`` holds texts ``section.key=value``, or
            is a mapping of such paths to values.

    Raises:
        UsageError: for any error, in one line.
        MissingInput: for a file that does not exist.
    """
    if unknown := given.keys() - {flag.name for flag in FLAGS}:
        raise TypeError(f"there is no flag {min(unknown)!r}")
    bases = [Path()] if base is None else [base, Path()]
    settings, file = given.get("set") or (), given.get("config")
    parts = (
        (assigned(path, value) for path, value in settings.items())
        if isinstance(settings, Mapping)
        else map(parse_assignment, settings)
    )
    typed = [placed_layer(expanded(layer), bases) for layer in (_together(parts), _of_flags(given, bases))]
    stored = {} if file is None else file_layer(Path(placed(str(file), "config", bases)))
    with blaming("" if file is None else origin("config", Path(str(file))), stored, typed):
        config = resolve([{} if code is None else {"code": dict(code)}, stored, *typed])
    return importing(config, typed if code is None else ())


def _of_flags(given: Mapping[str, Any], bases: Sequence[Path]) -> Tree:
    """The layer of the configuration given by flags."""
    tree: Tree = {}
    for flag in FLAGS:
        value = given.get(flag.name)
        if not flag.path or value is None or value == ():
            continue
        if flag.each:
            value = list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
        elif flag.kind is str:
            value = str(value)
        if flag.name == "teacher":
            value = _teacher(str(value), bases)
        tree = merged(tree, assigned(flag.path, value))
    return tree


def _teacher(text: str, bases: Sequence[Path]) -> Tree:
    """A network's name, or a file, whose name may also contain a colon."""
    file = Path(placed(text, "teacher", bases))
    if is_known(text) or (is_foreign(text) and not file.exists()):
        return {"network": text}
    if file.is_dir():
        raise UsageError(f"teacher {text!r} is a folder: give the file of weights in it")
    if file.suffix or os.sep in text or file.is_file():
        require_file(file)
        return {"file": str(file)}
    return {"network": text}


def resolve(layers: Iterable[Tree]) -> RunConfig:
    """Apply ``layers`` (config file, ``--set``, flags; later ones win) to the defaults and check the result.

    Raises:
        UsageError: for anything unknown, of the wrong type or out of range, for a preset for other data, and for the
            LRA step without a replay, in one line.
        MissingInput: for a user's own data that do not exist.
    """
    given = _together(map(expanded, layers))
    preset = None if given.get("preset") is None else str(given["preset"])
    named = {} if preset is None else settings_of(preset)
    chosen = merged(named, given)
    with blaming(f"preset {preset!r}", named, [given]):
        scale = _scale(chosen, preset, named)
        config = _laid(chosen | {"scale": scale, "preset": preset}, scales().get(scale))
    config = _often_enough(config, given)
    if config.meta.enabled and config.replay["name"] == "none":
        raise NothingRetained(
            "--meta has nothing to retain with --replay none: name a replay, such as --replay memory, or leave it out",
            "meta.enabled",
            "replay.name",
        )
    return config


def restored(tree: Tree) -> RunConfig:
    """A configuration as stored by a run, which is complete, so that later changes of scales and presets do not matter.

    Raises:
        UsageError: if it is not a whole and valid configuration.
    """
    return _laid(expanded(tree), None)


def _together(layers: Iterable[Tree]) -> Tree:
    given: Tree = {}
    for layer in layers:
        given = merged(given, layer)
    return given


def _laid(chosen: Tree, scale: Scale | None) -> RunConfig:
    """``chosen`` applied to the settings of its method's paper and of ``scale``, checked."""
    method = known_name("method", chosen.get("method", "predfkd" if scale is None else scale.method), METHODS)
    replay = _replay(chosen, METHODS[method])
    if replay == PAPER:
        replay = METHODS[method].memory
        chosen = chosen | {"replay": chosen.get("replay", {}) | {"name": replay}}
    if not names_class(replay):
        known_name("replay", replay, [*REPLAYS, PAPER, *replay_names()], "replay.name")
    defaults = METHODS[method].defaults
    retained = defaults.get("replay", {}).get(replay, {})
    base: Tree = {"method": method, **defaults, "replay": {"name": replay, **retained}}
    fitting = {} if scale is None else scale.of(METHODS[method], replay)
    if chosen.get("teacher", {}).get("file") is not None and "teacher" in fitting:  # The file has its own network.
        fitting["teacher"] = {key: value for key, value in fitting["teacher"].items() if key != "network"}
    return checked(merged(merged(base, fitting), chosen))


def _replay(chosen: Tree, method: type[Method]) -> str:
    """The replay asked for. Settings that are all published have that of the paper unless they name another."""
    published = chosen.get("scale") == PUBLISHED or chosen.get("preset") is not None
    return str(chosen.get("replay", {}).get("name", PAPER if published else method.retention))


def _often_enough(config: RunConfig, given: Tree) -> RunConfig:
    """Evaluate often enough for a curve if a budget in steps is given without an evaluation interval."""
    told = "every" in given.get("evaluation", {}) or "experiences_per_epoch" in given.get("schedule", {})
    if config.schedule.steps is None or told or config.evaluations >= EVALUATIONS:
        return config
    closer = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": None})})
    return closer if closer.evaluations > config.evaluations else config


def _scale(chosen: Tree, preset: str | None, named: Tree) -> str:
    """The requested scale, or the one that fits; published presets use none."""
    if chosen.get("scale") is not None:
        return known_name("scale", chosen["scale"], [*scales(), PUBLISHED])
    if preset is not None and source_of(preset) != OURS:
        return PUBLISHED
    facts = _facts(chosen)
    if facts is None:  # What is wrong with its section is said when all are checked.
        return PUBLISHED
    scale = scale_for(facts)
    if preset is not None and (meant := _facts(named)) is not None and (own := scale_for(meant)) != scale:
        method = METHODS[settings_of(preset)["method"]]
        raise UsageError(
            f"preset {preset!r} is for {named['data']['name']} ({own.summary}) and its settings would be lost on "
            f"{chosen['data']['name']} ({facts}): leave it out and name --method {method.name} "
            f"--replay {_replay(chosen, method)}"
        )
    return scale.name


def _facts(chosen: Tree) -> Facts | None:
    try:
        options = DataOptions.model_validate(chosen.get("data", {}))
    except ValidationError:
        return None
    try:
        return facts_of(options, str(chosen.get("device", "cpu")))
    except LraError as error:
        error.options = ("data.name",)
        raise


def importing(config: RunConfig, typed: Sequence[Tree] = ()) -> RunConfig:
    """A configuration whose modules can be imported from now on, and which states their folders.

    ``typed`` are the layers that the user typed, or that are this program's own: these are trusted.
    """
    names = {module.partition(".")[0] for layer in typed for module in modules_in(layer).values()}
    trusted = {top for layer in typed for top in layer.get("code") or {}}
    found = importable(modules_in(config.tree()), config.code or {}, names, trusted)
    return config.model_copy(update={"code": found or None})


def read_options(file: Path, what: str) -> Tree:
    """A YAML file of options as plain data; ``what`` it is: a config, a grid, or tasks.

    Raises:
        MissingInput: if it does not exist.
        UsageError: if it is not a YAML mapping.
    """
    require_file(file)
    try:
        tree = parse_yaml(file.read_text())
    except (NotPlain, UnicodeDecodeError) as error:
        raise UsageError(f"{what} {file} is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{what} {file} has no sections or options: write them as key: value, such as method: dafl")
    return tree


def file_layer(file: Path) -> Tree:
    """The layer in a configuration file; its relative paths start from its folder."""
    tree = read_options(file, "config")
    if (kind := tree.pop("kind", DISTILLED)) != DISTILLED:
        raise UsageError(f"config {file} is for lra-bench {kind}, and this command is for runs that distil")
    with concerning(origin("config", file)):
        return placed_layer(expanded(tree), [file.parent, Path()])


def origin(what: str, file: Path, version: object = None) -> str:
    """A file's name for an error message, with the version of this program that wrote it, if it was another.

    Without a ``version``, it is taken from the run whose folder the file is in, if there is one.
    """
    if version is None:
        try:
            version = json.loads((file.parent / "env.json").read_text())["versions"]["lra"]
        except (OSError, ValueError, KeyError, TypeError):  # of a user's own, or none that can be read
            version = __version__
    return f"{what} {file}" + (f" (written by lra {version}, and this is {__version__})" * (version != __version__))


def require_file(file: Path) -> None:
    """Raise `MissingInput` unless ``file`` exists."""
    if not file.is_file():
        raise MissingInput(f"file {file} does not exist: check the path")
