"""Presets and scales, the settings in ``presets.yaml``, and what a user is told of those that a run uses.

A scale is a set of settings that fits the data, and is used unless something else is requested. A preset is a complete
set of settings under a paper's name.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import yaml

from lra.benchmarks.errors import suggestion
from lra.benchmarks.setup.config import DataOptions, RunConfig, Tree
from lra.benchmarks.setup.datasets import DATASETS, data_of, data_set
from lra.benchmarks.setup.layers import WrongOption, expanded, merged
from lra.strategies.method import Method
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

OURS = "ours"
"""The source of presets that override the scale that fits their data. Others override the settings of a paper."""


PUBLISHED = "published"
"""No scale: the settings of the method's paper, whatever the data."""


@cache
def book() -> Tree:
    """The content of ``presets.yaml``."""
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
    """Where the numbers of a preset are from, unless they were chosen by us."""
    return str(presets()[name]["source"])


@cache
def printed() -> list[Tree]:
    """The content of ``published.yaml``: numbers from papers and repositories, see `lra.benchmarks.comparison`."""
    found: list[Tree] = yaml.safe_load((files("lra.benchmarks") / "published.yaml").read_text())
    return found


class Facts(NamedTuple):
    """What is known of the data and the device before anything is loaded.

    Attributes:
        image: channels, height and width, as networks see them.
        own: longer side of the data set's original images.
        classes: K.
        tests: number of test images, ``None`` if not known.
        device: as in the configuration.
    """

    image: tuple[int, int, int]
    own: int
    classes: int
    tests: int | None
    device: str

    def __str__(self) -> str:
        """The facts in words, such as ``1x28x28, 10 classes, 10,000 test images, cpu``."""
        tests = "" if self.tests is None else f"{self.tests:,} test images, "
        return f"{'x'.join(map(str, self.image))}, {self.classes} classes, {tests}{self.device}"


class Scale(NamedTuple):
    """Settings that fit some data.

    Attributes:
        name: as in ``presets.yaml``.
        summary: the data it is for.
        cost: what a run takes, and where that is from.
        fits: upper limits of facts, by name; ``channels`` and ``device`` must be equal.
        method: the one to use unless another is named.
        settings: for every method; those under ``methods`` are for one method only.
    """

    name: str
    summary: str
    cost: str
    fits: Tree
    method: str
    settings: Tree

    def fitting(self, facts: Facts) -> bool:
        """Whether the scale fits the data; unknown facts fit."""
        channels, height, width = facts.image
        found = {"side": max(height, width), "own": facts.own, "classes": facts.classes, "tests": facts.tests}
        exact = {"channels": channels, "device": facts.device.partition(":")[0]}
        return all(
            exact[key] == wanted if key in exact else found[key] is not None and found[key] <= wanted
            for key, wanted in self.fits.items()
        )

    @property
    def networks(self) -> str:
        """Teacher and student, and the budget."""
        schedule = self.settings["schedule"]
        steps = schedule["epochs"] * schedule["experiences_per_epoch"] * schedule["steps_per_experience"]
        pair = f"{self.settings['teacher']['network']} to {self.settings['student']['network']}"
        return f"{pair}, {steps:,} steps of {schedule['batch_size']}"

    def of(self, method: type[Method], replay: str) -> Tree:
        """The settings for a method with a replay; for synthesis, only the options that the method has."""
        settings = dict(self.settings)
        own = settings.pop("methods", {}).get(method.name, {})
        synthesis = {k: v for k, v in settings.pop("synthesis", {}).items() if k in method.Options.model_fields}
        if synthesis:
            settings["synthesis"] = synthesis
        tree: Tree = {"replay": {"name": replay}}
        for part in (settings, own):
            retained = part.get("replay", {}).get(replay, {})
            tree = merged(tree, part | {"replay": retained})
        return tree


def scales() -> dict[str, Scale]:
    """All scales by name; the first one that fits the data is used."""
    told = ("summary", "cost", "fits", "method")
    return {
        name: Scale(
            name,
            settings={key: value for key, value in tree.items() if key not in (*told, "source")},
            **{key: tree[key] for key in told},
        )
        for name, tree in book()["scales"].items()
    }


def scale_for(facts: Facts) -> Scale:
    """The first scale that fits; the last one fits all."""
    return next(scale for scale in scales().values() if scale.fitting(facts))


def facts_of(options: DataOptions, device: str) -> Facts:
    """What is known of the data of a configuration; no image is loaded.

    Raises:
        UsageError: for an unknown data set, or a user's own data that are not valid.
        MissingInput: for a user's own data that do not exist.
    """
    data = data_of(options)
    native = data_set(options.name) if options.name in DATASETS else data
    return Facts(data.image, max(native.image[1:]), data.classes, data.test_images, device)


def announced(config: RunConfig) -> Iterator[str]:
    """Lines on what is replayed, which scale or preset is used and why, and what does not fit what was given.

    Raises:
        LraError: as `facts_of`.
    """
    yield _replayed(config)
    if config.preset in presets():
        yield from _of_preset(config, config.preset)
    if config.scale is not None:
        yield from _of_scale(config, config.scale)
    if METHODS[config.method].for_copies and config.quantization is None:
        yield (
            f"method {config.method}: its settings are for a quantised copy of the teacher; add "
            "--set quantization={}, or give a student from scratch a higher student.lr and more steps"
        )


def _replayed(config: RunConfig) -> str:
    name = config.replay["name"]
    meta = ", with the LRA step" if config.meta.enabled else ""
    method = METHODS[config.method]
    own = ", as in its paper" if name == method.memory else ", the default" if name == method.retention else ""
    what = f": {REPLAYS[name].summary}" if name in REPLAYS else ""
    return f"method {config.method}, replay {name}{own}{meta}{what}"


def _of_preset(config: RunConfig, name: str) -> Iterator[str]:
    chosen = ", ".join(chosen_of(name))
    yield f"preset {name}: its numbers are {source_of(name)}" + (
        f", but for {chosen}, which are ours" if chosen else ""
    )
    if replaced := dropped(config, name):
        yield f"preset {name} is not for what was given: {replaced}; its other settings stay as they are"


def chosen_of(preset: str) -> list[str]:
    """What we had to choose for a preset, beyond what its paper says: options, or their section if more than two."""
    found = presets()[preset].get("chosen", {})
    return [
        name
        for section, options in found.items()
        for name in ([section] if len(options) > 2 else [f"{section}.{option}" for option in options])
    ]


def dropped(config: RunConfig, preset: str) -> str:
    """Which of the data and networks that a preset names a configuration has replaced, in words; empty if none."""
    found = {"data": config.data.name, "student": config.student.network}
    if config.teacher.file is None:  # What a file holds is known when it is read, see `unlike`.
        found["teacher"] = config.teacher.network
    return ", ".join(filter(None, (_replaced(preset, section, value) for section, value in found.items())))


def unlike(config: RunConfig, teacher: str) -> str:
    """A line on a file whose network ``teacher`` is not the preset's; empty if it is."""
    if config.preset not in presets() or config.teacher.file is None:
        return ""
    replaced = _replaced(config.preset, "teacher", teacher)
    return f"preset {config.preset} is not for what was given: {replaced}" if replaced else ""


def _replaced(preset: str, section: str, value: str) -> str:
    wanted = settings_of(preset).get(section, {}).get("name" if section == "data" else "network")
    same = wanted is None or _plain(value) == _plain(wanted)
    return "" if same else f"{section} {value} in place of {wanted}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _of_scale(config: RunConfig, name: str) -> Iterator[str]:
    if name == PUBLISHED:
        if config.preset is None:
            yield f"scale {PUBLISHED}: the settings of the method's paper, whatever the data"
        return
    facts = facts_of(config.data, config.device)
    scale, fitting = scales().get(name), scale_for(facts).name
    if scale is not None:
        why = "" if fitting == name else f", for which {fitting} would be"
        yield f"scale {name}: {scale.summary} ({facts}{why}); {scale.cost}"
