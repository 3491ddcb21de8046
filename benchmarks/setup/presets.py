"""Presets: whole cells of settings under a paper's name, in ``presets.yaml``, where the scales are too."""

from functools import cache
from importlib.resources import files

import yaml

from lra.benchmarks.errors import suggestion
from lra.benchmarks.setup.checking import WrongOption
from lra.benchmarks.setup.config import Tree
from lra.benchmarks.setup.layers import expanded, merged

OURS = "ours"
"""The source of presets that lie over the scale that fits their data. Others lie over the settings of a paper."""


@cache
def book() -> Tree:
    """What is in ``presets.yaml``."""
    text = (files("lra.benchmarks") / "presets.yaml").read_text()
    return yaml.safe_load(text)


def presets() -> dict[str, Tree]:
    """All presets by name."""
    return dict(book()["presets"])


def settings_of(name: str) -> Tree:
    """The settings of a preset, section by section: what its paper says and under ``chosen`` what had to be chosen.

    Raises:
        UsageError: if there is none of this name.
    """
    known = presets()
    if name not in known:
        raise WrongOption(f"unknown preset {name!r}; {suggestion(name, known, 'lra-bench list presets')}", "preset")
    said = {key: value for key, value in known[name].items() if key != "chosen"}
    return merged(expanded(said), expanded(known[name].get("chosen", {})))


def source_of(name: str) -> str:
    """Where the numbers of a preset are from, as far as they were not chosen by us."""
    return str(presets()[name]["source"])
