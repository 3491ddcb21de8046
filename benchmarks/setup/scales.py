"""Scales: settings that fit the data, chosen by what is known of them. They stand under ``scales`` in ``presets.yaml``.

A scale is what a run takes that asks for nothing else. A published cell is what a preset asks for.
"""

from typing import NamedTuple

from lra.benchmarks.setup.config import DataOptions, Tree
from lra.benchmarks.setup.datasets import DATASETS, data_of, data_set
from lra.benchmarks.setup.layers import merged
from lra.benchmarks.setup.presets import book
from lra.strategies.method import Method

PUBLISHED = "published"
"""No scale: the settings of the method's paper, whatever the data."""


class Facts(NamedTuple):
    """What is known of the data, and of where to compute, before anything is loaded.

    Attributes:
        image: channels, height and width, as networks see it.
        own: longer side of the data set's images as they come.
        classes: K.
        tests: images to test on, ``None`` if that is not known.
        device: as in the configuration.
    """

    image: tuple[int, int, int]
    own: int
    classes: int
    tests: int | None
    device: str

    def __str__(self) -> str:
        """As in ``1x28x28, 10 classes, 10,000 test images, cpu``."""
        tests = "" if self.tests is None else f"{self.tests:,} test images, "
        return f"{'x'.join(map(str, self.image))}, {self.classes} classes, {tests}{self.device}"


class Scale(NamedTuple):
    """Settings that fit some data.

    Attributes:
        name: as in ``presets.yaml``.
        summary: the data it is for.
        cost: what a run of it takes, and where that is from.
        fits: the most that the facts may be, by their name; of ``channels`` and ``device`` what they must be.
        settings: for every method; what stands under ``methods`` is for that method only.
    """

    name: str
    summary: str
    cost: str
    fits: Tree
    settings: Tree

    def fitting(self, facts: Facts) -> bool:
        """Whether the data are of this kind; what is not known fits."""
        channels, height, width = facts.image
        found = {"side": max(height, width), "own": facts.own, "classes": facts.classes, "tests": facts.tests}
        exact = {"channels": channels, "device": facts.device.partition(":")[0]}
        return all(
            exact[key] == wanted if key in exact else found[key] is not None and found[key] <= wanted
            for key, wanted in self.fits.items()
        )

    @property
    def networks(self) -> str:
        """Teacher and student, and how long it is."""
        schedule = self.settings["schedule"]
        steps = schedule["epochs"] * schedule["experiences_per_epoch"] * schedule["steps_per_experience"]
        pair = f"{self.settings['teacher']['network']} to {self.settings['student']['network']}"
        return f"{pair}, {steps:,} steps of {schedule['batch_size']}"

    def of(self, method: type[Method], replay: str) -> Tree:
        """The settings for a method with a replay; of synthesis, the options that the method has."""
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
    """All scales by name; of those that fit some data the first is theirs."""
    return {name: _scale(name, tree) for name, tree in book()["scales"].items()}


def _scale(name: str, tree: Tree) -> Scale:
    about = ("summary", "cost", "fits", "source")
    settings = {key: value for key, value in tree.items() if key not in about}
    return Scale(name, tree["summary"], tree["cost"], tree["fits"], settings)


def scale_for(facts: Facts) -> Scale:
    """The first scale that fits; the last one fits all."""
    return next(scale for scale in scales().values() if scale.fitting(facts))


def facts_of(options: DataOptions, device: str) -> Facts:
    """What is known of the data of a configuration; no image is loaded for it.

    Raises:
        UsageError: for an unknown data set, or a user's own data that are not as they must be.
        MissingInput: for a user's own data that are not there.
    """
    data = data_of(options)
    native = data_set(options.name) if options.name in DATASETS else data
    return Facts(data.image, max(native.image[1:]), data.classes, data.test_images, device)
