"""Plugins from outside: by ``package.module:Class``, or installed under a name of their own.

An installed package offers plugins through the entry-point group ``lra.plugins``. A plugin class is built from
keyword options, or by its own ``build(setup, **options)`` if it has one and so can know the problem.
"""

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeAlias

from avalanche.core import BasePlugin

from lra.strategies.method import Setup

Plugin: TypeAlias = BasePlugin[Any]
"""Any plugin of Avalanche's, or ours."""

GROUP = "lra.plugins"


class ExtensionError(ValueError):
    """A plugin that cannot be used, with the reason in one line."""


@cache
def replay_plugins() -> dict[str, EntryPoint]:
    """Installed plugins by name; nothing is imported yet."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(spec: str) -> type[Plugin]:
    """The plugin class that ``package.module:Class``, or an installed name, stands for.

    Raises:
        ExtensionError: if it cannot be found, imported, or is no Avalanche plugin class.
    """
    if spec in replay_plugins():
        spec = replay_plugins()[spec].value
    module_name, colon, class_name = spec.partition(":")
    if not colon:
        raise ExtensionError(f"plugin {spec!r}: write it as package.module:Class, or install it (group {GROUP})")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ExtensionError(
            f"plugin {spec!r}: importing {module_name} failed ({error!r}); is it installed?"
        ) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, BasePlugin)):
        raise ExtensionError(f"plugin {spec!r}: {module_name} has no Avalanche plugin class {class_name!r}")
    return found


def build(spec: str, options: Mapping[str, Any], setup: Setup) -> Plugin:
    """The plugin of ``spec`` with ``options``.

    Raises:
        ExtensionError: as `load`, or if it refuses the options.
    """
    plugin = load(spec)
    try:
        maker = getattr(plugin, "build", None)
        return maker(setup, **options) if maker else plugin(**options)
    except (TypeError, ValueError) as error:
        known = ", ".join(accepted(plugin)) or "none"
        raise ExtensionError(f"plugin {spec!r} refused its options ({error}); it takes: {known}") from error


def accepted(plugin: type[Plugin]) -> list[str]:
    """Names of the options a plugin class takes."""
    maker = getattr(plugin, "build", None) or plugin.__init__
    return [name for name in inspect.signature(maker).parameters if name not in ("self", "setup", "args", "kwargs")]
