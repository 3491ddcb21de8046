"""Presets and scales: settings as data, in ``presets.yaml``."""

from functools import cache
from importlib.resources import files

import yaml

from lra.benchmarks.errors import UsageError, nearest
from lra.benchmarks.setup.config import Tree
from lra.benchmarks.setup.layers import merged


@cache
def _book() -> Tree:
    text = (files("lra.benchmarks") / "presets.yaml").read_text()
    return yaml.safe_load(text)


def presets() -> dict[str, Tree]:
    """All presets by name."""
    return dict(_book()["presets"])


def settings_of(name: str) -> Tree:
    """The settings of a preset; `UsageError` if there is none of this name."""
    known = presets()
    if name not in known:
        raise UsageError(f"unknown preset {name!r}; did you mean {nearest(name, known)!r}? See lra-bench list presets")
    return known[name]


def scale_of(data: str, method: str, replay: str) -> Tree:
    """The settings that fit a method and a replay to a data set, empty where none are written down."""
    fitting = dict(_book()["scales"].get(data, {}))
    own = fitting.pop("methods", {}).get(method, {})
    tree: Tree = {"replay": {"name": replay}}
    for part in (fitting, own):
        retained = part.get("replay", {}).get(replay, {})
        tree = merged(tree, {k: v for k, v in part.items() if k not in ("source", "replay")} | {"replay": retained})
    return tree
