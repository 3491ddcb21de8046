"""Retention in a run: replay, the LRA step on it, and external plugins."""

from __future__ import annotations

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.config import RunConfig
from lra.meta.options import LRAOptions
from lra.state import Stateful
from lra.strategies import extensions
from lra.strategies.lra import LRA
from lra.strategies.method import Setup
from lra.strategies.retention import REPLAYS, ReplayOptions
from lra.strategies.strategy import Replay, leave_new_images


def retention(config: RunConfig, setup: Setup) -> list[extensions.Plugin]:
    """The replay plugin, the LRA step on it, and the user's plugins, in the order in which they act.

    Raises:
        UsageError: if a plugin cannot be found, refuses its options, or does not work with the LRA step or rollbacks,
            or if the replays may leave no new images.
    """
    name = config.replay["name"]
    try:
        replay = _replay(config, setup)
        guests = _guests(config, setup)
        leave_new_images([replay, *guests], setup.batch_size)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if config.on_divergence == "rollback" and (without := forgetful(config)):
        raise UsageError(f"on_divergence = 'rollback': plugin {without[0]!r} has no state_dict to go back to: use stop")
    plugins = [] if replay is None else [replay]
    if not config.meta.enabled or name == "none":
        return [*plugins, *guests]
    if not isinstance(replay, Replay):
        raise UsageError(
            f"--meta needs a plugin that replays (a lra.strategies.strategy.Replay), and {name!r} is not one: name it "
            "with --plugin beside a --replay such as memory"
        )
    step = LRA(replay, LRAOptions(**config.meta.model_dump(exclude={"enabled"})))
    return [*plugins, step, *guests]


def _replay(config: RunConfig, setup: Setup) -> extensions.Plugin | None:
    options = dict(config.replay)
    name = options.pop("name")
    if name in REPLAYS:
        return REPLAYS[name].model_validate(options).build(setup)
    if not name.startswith(extensions.AVALANCHE):
        return extensions.build(name, options, setup)
    if options:
        raise UsageError(f"replay.{next(iter(options))}: options of {name!r} are set as plugin.option=value")
    return None


def held_option(name: str) -> str | None:
    """The option of replay ``name`` for the number of images it holds, if there is one."""
    if name in REPLAYS:
        return REPLAYS[name].held
    replay = extensions.load(name)
    return replay.held if isinstance(replay, type) and issubclass(replay, Replay) else None


def needs_stock_data(config: RunConfig) -> bool:
    """Whether some plugin works on Avalanche's datasets and loaders."""
    return any(map(extensions.needs_stock_data, _specs(config)))


def forgetful(config: RunConfig) -> list[str]:
    """The external plugins without a state to resume from, so that a run with them cannot be saved half-way."""
    name = config.replay["name"]
    outside = {*_specs(config), *([] if name in REPLAYS else [name])}
    made_by = {spec: extensions.load(spec) for spec in outside}
    kept = (Stateful, ReplayOptions)
    return sorted(spec for spec, made in made_by.items() if not isinstance(made, type) or not issubclass(made, kept))


def _specs(config: RunConfig) -> list[str]:
    """The external plugins that take the options of the section ``plugin``."""
    name = config.replay["name"]
    return [*([name] if name.startswith(extensions.AVALANCHE) else []), *config.plugin.use]


def _guests(config: RunConfig, setup: Setup) -> list[extensions.Plugin]:
    options = config.plugin.model_dump(exclude={"use"})
    if (twice := config.replay["name"]) in config.plugin.use:
        raise UsageError(f"plugin {twice!r} is the replay already: name another beside it, or leave it out")
    accepted = {spec: extensions.accepted(extensions.load(spec)) for spec in _specs(config)}
    for name in options:
        if not any(name in names for names in accepted.values()):
            raise UsageError(f"plugin.{name}: no plugin in use takes it; they take {accepted or 'nothing'}")
    return [
        extensions.build(spec, {k: v for k, v in options.items() if k in names}, setup)
        for spec, names in accepted.items()
    ]
