"""From layers to a checked configuration.

Defaults < scale of the data set < preset < config file < ``--set`` < flags.
"""

from collections.abc import Iterable

from lra.benchmarks.setup.checking import checked, known_name
from lra.benchmarks.setup.config import EVALUATIONS, RunConfig, Tree
from lra.benchmarks.setup.layers import expanded, merged
from lra.benchmarks.setup.presets import scale_of, settings_of
from lra.strategies.extensions import names_class, replay_names
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS


def resolve(layers: Iterable[Tree], preset: str | None = None) -> RunConfig:
    """Lay ``layers`` (config file, ``--set``, flags; later ones win) over the defaults and check the result.

    Raises:
        UsageError: for anything unknown, of the wrong type or out of range, in one line.
    """
    given: Tree = {}
    for layer in layers:
        given = merged(given, expanded(layer))
    named = {} if preset is None else expanded(settings_of(preset))
    chosen = merged(named, given)
    method = known_name("method", chosen.get("method", "predfkd"), METHODS)
    data = str(chosen.get("data", {}).get("name", "digits"))
    replay = str(chosen.get("replay", {}).get("name", "none"))
    if not names_class(replay):
        known_name("replay", replay, [*REPLAYS, *replay_names()])
    base: Tree = {"method": method, **METHODS[method].defaults}
    return _often_enough(checked(merged(merged(base, _scale(data, method, replay, chosen)), chosen)), given)


def _scale(data: str, method: str, replay: str, chosen: Tree) -> Tree:
    """The settings that fit a data set, without a network for a teacher's file: the file has its own."""
    scale = scale_of(data, method, replay)
    if chosen.get("teacher", {}).get("file") is not None and "teacher" in scale:
        scale["teacher"] = {key: value for key, value in scale["teacher"].items() if key != "network"}
    return scale


def _often_enough(config: RunConfig, given: Tree) -> RunConfig:
    """Evaluate often enough for a curve where a budget in steps is given, and nothing of how often to evaluate."""
    told = "every" in given.get("evaluation", {}) or "experiences_per_epoch" in given.get("schedule", {})
    if config.schedule.steps is None or told or config.evaluations >= EVALUATIONS:
        return config
    closer = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": None})})
    return closer if closer.evaluations > config.evaluations else config
