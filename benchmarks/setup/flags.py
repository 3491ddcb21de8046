"""The flags of a configuration: options of ``run`` and similar commands, and keys of grids and files of tasks."""

from pathlib import Path
from typing import NamedTuple


class Flag(NamedTuple):
    """A short name for an option.

    Attributes:
        name: as in grids and files of tasks; on the command line after two dashes, with dashes for underscores.
        path: of the option in a configuration; empty where the flag stands for a whole file, or for any option.
        help: for ``--help``.
        kind: type of its value, or the choices.
        each: metavar of one value, for a flag that may be given several times.
    """

    name: str
    path: str
    help: str
    kind: type | tuple[str, ...] = str
    each: str = ""


FLAGS = (
    Flag("method", "method", "How samples are made (see: list methods). [default: by the scale (see: list scales)]"),
    Flag(
        "replay",
        "replay.name",
        "How earlier samples are replayed (see: list replays). "
        "[default: reservoir; pool for a method that makes whole batches; paper with a preset]",
    ),
    Flag("meta", "meta.enabled", "Take the LRA step. [default: off]", bool),
    Flag("dataset", "data.name", "Data to evaluate on (see: list datasets). [default: digits]"),
    Flag("teacher", "teacher", "A network to train on the data (see: list models), or a weights file."),
    Flag("student", "student.network", "The student's network (see: list models)."),
    Flag("steps", "schedule.steps", "Budget in student steps, instead of epochs.", int),
    Flag("seed", "seed", "Seed of everything random. [default: 0]", int),
    Flag("preset", "preset", "A named configuration (see: list presets)."),
    Flag("config", "", "A YAML configuration file.", Path),
    Flag("set", "", "Set any option (see: list options): student.lr=0.05.", each="KEY=VALUE"),
    Flag("plugin", "plugin.use", "An Avalanche plugin to add, or a second replay.", each="NAME"),
    Flag("device", "device", "Where to compute: cpu, cuda, cuda:1. [default: cpu]"),
    Flag("threads", "threads", "Torch threads. [default: by the size of the networks]", int),
    Flag(
        "on_divergence",
        "on_divergence",
        "On NaN or exploding numbers: stop, or go on from the last evaluation at half the rate. [default: stop]",
        ("stop", "rollback"),
    ),
)
