"""External plugins: by ``package.module:Class``, by the name under which one is installed, or Avalanche's by name.

An installed package offers plugins through the entry-point group ``lra.plugins``. ``avalanche:NAME`` is a row of
`GUESTS`, and ``avalanche:package.module:Class`` any class that expects Avalanche's data loaders. A plugin class is
built from keyword options or, to have access to the problem, by its own ``build(setup, **options)``. The name of one
of `REPLAYS` adds that replay to the one the run has already.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import ValidationError

from lra.strategies.guests import GUESTS, Guest
from lra.strategies.retention import REPLAYS, ReplayOptions

if TYPE_CHECKING:
    from avalanche.core import BasePlugin

    from lra.strategies.method import Setup
    from lra.strategies.strategy import DataFreeDistillation

    Plugin: TypeAlias = BasePlugin[Any]
    """Any plugin, of Avalanche's or ours."""
    Maker: TypeAlias = type[Plugin] | type[ReplayOptions] | Callable[..., Plugin]
    """A plugin class, the options of a replay, or a function of `Setup` and options."""

GROUP = "lra.plugins"
AVALANCHE = "avalanche:"
CALLED = ("recall", "view")
"""What the strategy calls on a user's replay or student step, in addition to Avalanche's callbacks."""


class ExtensionError(ValueError):
    """A plugin that cannot be used, with the reason in one line."""


class PluginFailed(RuntimeError):
    """An external plugin raised an exception in the middle of a run."""


@cache
def replay_plugins() -> dict[str, EntryPoint]:
    """Installed plugins by name; nothing is imported yet."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(spec: str) -> Maker:
    """The plugin class for ``package.module:Class`` or an installed name; for a name in `GUESTS`, the plugin's maker.

    The name of one of `REPLAYS` gives its options.

    Raises:
        ExtensionError: if it cannot be found or imported, or is not an Avalanche plugin class.
    """
    from avalanche.core import BasePlugin

    if spec in REPLAYS:
        return REPLAYS[spec]
    name = spec.removeprefix(AVALANCHE)
    if name != spec and not names_class(spec):
        guest = _avalanches(name)
        if not isinstance(guest, str):
            return guest
        name = guest
    if name in replay_plugins():
        name = replay_plugins()[name].value
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise ExtensionError(
            f"plugin {spec!r}: write it as package.module:Class, or install it (group {GROUP}); "
            f"or name a replay: {', '.join(REPLAYS)}"
        )
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script that parses its arguments ends so
        raise ExtensionError(
            f"plugin {spec!r}: importing {module_name} failed ({error!r}); is it installed? Or go to the "
            "folder it lies in (PYTHONPATH adds others)"
        ) from error
    if not hasattr(module, class_name):
        raise ExtensionError(f"plugin {spec!r}: {module_name} has no {class_name!r}; name a class of it")
    found = getattr(module, class_name)
    _refuse_as_it_is(spec, found)
    if not (isinstance(found, type) and issubclass(found, BasePlugin)):
        raise ExtensionError(
            f"plugin {spec!r}: {class_name} is not an Avalanche plugin; derive it from avalanche.core.SupervisedPlugin"
        )
    return found


def _avalanches(name: str) -> str | Callable[..., Plugin]:
    if name not in GUESTS:
        known = ", ".join(GUESTS)
        raise ExtensionError(f"plugin 'avalanche:{name}' is none of {known}, nor avalanche:package.module:Class")
    plugin = GUESTS[name].plugin
    if plugin is None:
        raise _refusal(f"{AVALANCHE}{name}", GUESTS[name])
    return plugin


def _refusal(spec: str, guest: Guest) -> ExtensionError:
    return ExtensionError(f"plugin {spec!r} needs {guest.needs}, and gets {guest.gets}; {guest.verdict}")


def _refuse_as_it_is(spec: str, found: object) -> None:
    """Raise `ExtensionError` for a class of Avalanche's that, by the table, does not work here unchanged."""
    if not isinstance(found, type) or not found.__module__.startswith("avalanche."):
        return
    for name, guest in GUESTS.items():
        if found.__name__ in guest.classes:
            if guest.plugin is None:
                raise _refusal(spec, guest)
            raise ExtensionError(
                f"plugin {spec!r} does not work as it is; use {AVALANCHE}{name}, which {guest.verdict}"
            )


def needs_stock_data(spec: str) -> bool:
    """Whether a plugin works on Avalanche's datasets and loaders."""
    guest = GUESTS.get(spec.removeprefix(AVALANCHE)) if spec.startswith(AVALANCHE) else None
    return names_class(spec) or (guest is not None and guest.stock_data)


def build(spec: str, options: Mapping[str, Any], setup: Setup) -> Plugin:
    """The plugin of ``spec`` with ``options``; exceptions that it raises later become `PluginFailed`.

    Raises:
        ExtensionError: as `load`, or if it refuses the options or builds something that is not a plugin.
    """
    from avalanche.core import BasePlugin
    from avalanche.training.plugins import ReplayPlugin

    plugin = load(spec)
    try:
        if isinstance(plugin, type) and issubclass(plugin, ReplayOptions):
            made: Any = plugin.model_validate(options).build(setup)
        else:
            maker = _maker(plugin)
            made = plugin(**options) if maker is None else maker(setup, **options)
    except Exception as error:
        known, said = ", ".join(accepted(plugin)) or "none", str(error)
        if isinstance(error, ValidationError):  # Which says it in several lines.
            first = error.errors()[0]
            said = f"plugin.{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}"
        raise ExtensionError(f"plugin {spec!r} refused its options ({said}); it takes: {known}") from error
    if not isinstance(made, BasePlugin):
        raise ExtensionError(f"plugin {spec!r}: its build() returns no Avalanche plugin but {made!r}")
    if (why := _inert(made)) is not None:
        raise ExtensionError(f"plugin {spec!r} would do nothing here: {why}")
    if isinstance(made, ReplayPlugin) and not needs_stock_data(spec):
        raise ExtensionError(f"plugin {spec!r} replays through Avalanche's data loaders: use {AVALANCHE}{spec}")
    for hook in dir(type(made)):
        if hook.startswith(("before_", "after_")) or hook in CALLED:
            setattr(made, hook, _answerable(getattr(made, hook), f"plugin {spec!r}", hook))
    return made


def _inert(plugin: Plugin) -> str | None:
    """Why a plugin could never do anything on a stream, or ``None``."""
    from avalanche.core import SupervisedPlugin
    from avalanche.training.plugins import EarlyStoppingPlugin, LRSchedulerPlugin
    from avalanche.training.templates.base_sgd import PeriodicEval

    if isinstance(plugin, EarlyStoppingPlugin):
        return (
            "it counts epochs of one experience, and a stream's have a single one each; stop the whole run by "
            "strategy.stop_training() in a plugin of your own, after_training_exp say"
        )
    if isinstance(plugin, LRSchedulerPlugin) and plugin.step_granularity == "epoch" and plugin.reset_lr:
        return (
            "it sets the learning rate back after each experience, and a stream's have a single epoch each: set "
            "reset_lr=False and reset_scheduler=False"
        )
    if isinstance(plugin, PeriodicEval):
        return "there is no stream for it to evaluate on; set evaluation.every"
    known = {name for name in dir(SupervisedPlugin) if name.startswith(("before_", "after_"))}
    own = {name for name in dir(plugin) if name.startswith(("before_", "after_"))}
    if any(_differs(getattr(plugin, name), getattr(SupervisedPlugin, name)) for name in own & known):
        return None
    unknown = sorted(own - known)
    near = unknown and difflib.get_close_matches(unknown[0], known, n=1, cutoff=0)[0]
    return (
        f"{unknown[0]} is no callback; did you mean {near}?" if near else "it overrides none of Avalanche's callbacks"
    )


def _differs(callback: object, inherited: object) -> bool:
    return getattr(callback, "__func__", callback) is not inherited


def _answerable(callback: Callable[..., Any], whose: str, hook: str) -> Callable[..., Any]:
    """``callback``, so that an exception it raises, or a stop of the run by it, names the plugin."""

    @wraps(callback)
    def call(*strategies: DataFreeDistillation, **kwargs: Any) -> Any:
        before = [strategy.stopped for strategy in strategies]
        try:
            returned = callback(*strategies, **kwargs)
        except Exception as error:
            where = "".join(f", experience {strategy.clock.train_exp_counter}" for strategy in strategies)
            reason = " ".join(str(error).split())
            said = f"{whose} raised in {hook}{where}: {': '.join(filter(None, [type(error).__name__, reason]))}"
            raise PluginFailed(f"{said}; fix it or leave it out") from error
        for strategy, stopped in zip(strategies, before, strict=True):
            if strategy.stopped != stopped:
                strategy.stopped = whose
        return returned

    return call


def _maker(plugin: Maker) -> Callable[..., Any] | None:
    """What makes the plugin from a `Setup` and options, if it is not just the class from its options."""
    return getattr(plugin, "build", None) if isinstance(plugin, type) else plugin


def accepted(plugin: Maker) -> list[str]:
    """Names of the options that a plugin class, or what makes one, takes."""
    if isinstance(plugin, type) and issubclass(plugin, ReplayOptions):
        return [*plugin.model_fields]
    maker = _maker(plugin) or plugin.__init__
    return [name for name in inspect.signature(maker).parameters if name not in ("self", "setup", "args", "kwargs")]


def replay_names() -> Iterable[str]:
    """Names that can be given as a replay in addition to the package's own: installed plugins, and Avalanche's."""
    return [*replay_plugins(), *(AVALANCHE + name for name in GUESTS)]


def names_class(spec: str) -> bool:
    """Whether this is a class of Avalanche's interface, ``avalanche:package.module:Class``."""
    return spec.startswith(AVALANCHE) and ":" in spec.removeprefix(AVALANCHE)
