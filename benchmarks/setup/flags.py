"""The flags of a configuration, written once: what ``run`` and its like take, and grids and files of tasks by name."""

from pathlib import Path
from typing import NamedTuple


class Flag(NamedTuple):
    """A short way to say an option.

    Attributes:
        name: in grids and files of tasks; on the command line behind two dashes, with dashes.
        path: of the option in a configuration; empty where the flag stands for a whole file, or for any option.
        help: for ``--help``.
        kind: type of its value, or what there is to choose from.
        each: what is given each time, of a flag that may be given several times.
    """

    name: str
    path: str
    help: str
    kind: type | tuple[str, ...] = str
    each: str = ""


FLAGS = (
    Flag("method", "method", "How samples are made (see: list methods). [default: predfkd]"),
    Flag(
        "replay", "replay.name", "What the student sees again (see: list replays). [default: paper, the method's own]"
    ),
    Flag("meta", "meta.enabled", "Take the LRA step. [default: off]", bool),
    Flag("dataset", "data.name", "Data to evaluate on (see: list datasets). [default: digits]"),
    Flag("teacher", "teacher", "A network to train on that data (see: list models), or a weights file."),
    Flag("student", "student.network", "The student's network (see: list models)."),
    Flag("steps", "schedule.steps", "Budget in student steps, in place of epochs.", int),
    Flag("seed", "seed", "Seed of everything random. [default: 0]", int),
    Flag("preset", "preset", "A named cell (see: list presets)."),
    Flag("config", "", "A YAML configuration.", Path),
    Flag("set", "", "Any option: student.lr=0.05.", each="KEY=VALUE"),
    Flag("plugin", "plugin.use", "An Avalanche plugin to add, or a second replay.", each="NAME"),
    Flag("device", "device", "Where to compute: cpu, cuda, cuda:1. [default: cpu]"),
    Flag("threads", "threads", "Torch threads. [default: by the size of the networks]", int),
    Flag(
        "on_divergence",
        "on_divergence",
        "At NaN or exploding numbers: stop, or continue from the last evaluation at half the rate. [default: stop]",
        ("stop", "rollback"),
    ),
)
