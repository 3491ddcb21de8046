"""From layers to a checked configuration.

Defaults < settings of the method's paper < scale that fits the data < preset < config file < ``--set`` < flags.
"""

from collections.abc import Iterable

from pydantic import ValidationError

from lra.benchmarks.errors import LraError, UsageError
from lra.benchmarks.setup.config import EVALUATIONS, DataOptions, RunConfig, Tree
from lra.benchmarks.setup.layers import blaming, checked, expanded, known_name, merged
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
from lra.strategies.extensions import names_class, replay_names
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS


class NothingRetained(UsageError):
    """The LRA step is asked for, and no replay."""


def resolve(layers: Iterable[Tree], preset: str | None = None) -> RunConfig:
    """Lay ``layers`` (config file, ``--set``, flags; later ones win) over the defaults and check the result.

    Raises:
        UsageError: for anything unknown, of the wrong type or out of range, for a preset that is for other data, and
            for the LRA step without a replay, in one line.
        MissingInput: for a user's own data that are not there.
    """
    given = _together(layers)
    preset = preset or (str(given["preset"]) if given.get("preset") is not None else None)
    named = {} if preset is None else settings_of(preset)
    chosen = merged(named, given)
    with blaming(f"preset {preset!r}", named, [given]):
        scale = _scale(chosen, preset, named)
        config = _laid(chosen | {"scale": scale, "preset": preset}, scales().get(scale))
    config = _often_enough(config, given)
    if config.meta.enabled and config.replay["name"] == "none":
        raise NothingRetained(
            "--meta has nothing to retain with --replay none: name a replay, such as --replay memory, or leave it out"
        )
    return config


def restored(tree: Tree) -> RunConfig:
    """A configuration from what a run stored, which is all of it, whatever has become of scales and presets since.

    Raises:
        UsageError: if it is none.
    """
    return _laid(expanded(tree), None)


def _together(layers: Iterable[Tree]) -> Tree:
    given: Tree = {}
    for layer in layers:
        given = merged(given, expanded(layer))
    return given


def _laid(chosen: Tree, scale: Scale | None) -> RunConfig:
    """``chosen`` over the settings of its method's paper and those of ``scale``, checked."""
    method = known_name("method", chosen.get("method", "predfkd"), METHODS)
    replay = str(chosen.get("replay", {}).get("name", METHODS[method].memory))
    if not names_class(replay):
        known_name("replay", replay, [*REPLAYS, *replay_names()], "replay.name")
    base: Tree = {"method": method, "replay": {"name": replay}, **METHODS[method].defaults}
    fitting = {} if scale is None else scale.of(METHODS[method], replay)
    if chosen.get("teacher", {}).get("file") is not None and "teacher" in fitting:  # The file has its own network.
        fitting["teacher"] = {key: value for key, value in fitting["teacher"].items() if key != "network"}
    return checked(merged(merged(base, fitting), chosen))


def _often_enough(config: RunConfig, given: Tree) -> RunConfig:
    """Evaluate often enough for a curve where a budget in steps is given, and nothing of how often to evaluate."""
    told = "every" in given.get("evaluation", {}) or "experiences_per_epoch" in given.get("schedule", {})
    if config.schedule.steps is None or told or config.evaluations >= EVALUATIONS:
        return config
    closer = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": None})})
    return closer if closer.evaluations > config.evaluations else config


def _scale(chosen: Tree, preset: str | None, named: Tree) -> str:
    """The scale that is asked for, or the one that fits: published cells lie over none."""
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
        replay = chosen.get("replay", {}).get("name", method.memory)
        raise UsageError(
            f"preset {preset!r} is for {named['data']['name']} ({own.summary}) and its settings would be lost on "
            f"{chosen['data']['name']} ({facts}): leave it out and name --method {method.name} --replay {replay}"
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
        error.option = "data.name"
        raise
