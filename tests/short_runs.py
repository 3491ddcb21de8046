"""What many tests build: one small teacher, and runs of any method with quick settings."""

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lra.benchmarks.robustness.unchanged import quick
from lra.benchmarks.setup.datasets import Labelled, digits
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.layers import parse_assignment
from lra.benchmarks.setup.resolution import resolve
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.networks.normalized import Normalized
from lra.state import seed_everything
from lra.strategies.methods import METHODS

MEAN, STD = (0.31,), (0.35,)
DIGITS = digits()
FEW = Labelled(*(part[:20] for part in DIGITS.load("test")))
"""Test images enough for evaluations whose accuracy nobody looks at."""


def as_teacher(network: Normalized, name: str) -> TrainedTeacher:
    """A network as if it had come from a file."""
    return TrainedTeacher(network.eval(), name, MEAN, STD, "0" * 64, Path(name), None)


@functools.cache
def small_teacher(seed: int = 0) -> TrainedTeacher:
    """A small teacher with BatchNorm that has seen digits for a moment."""
    real = DIGITS.load("train")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 8, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        layers += [nn.Conv2d(8, 24, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
        body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(24 * 16, 32), nn.ReLU(), nn.Linear(32, 10))
        network = Normalized(body, MEAN, STD)
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(6):
            for chosen in torch.randperm(len(real.images)).split(64):
                optimiser.zero_grad()
                F.cross_entropy(network(real.images[chosen]), real.classes[chosen]).backward()
                optimiser.step()
    return as_teacher(network, "small")


@functools.cache
def plain_teacher() -> TrainedTeacher:
    """A teacher without BatchNorm, which has learnt nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.ReLU(), nn.Flatten()]
        layers += [nn.Linear(72, 16), nn.ReLU(), nn.Linear(16, 10)]
        return as_teacher(Normalized(nn.Sequential(*layers), MEAN, STD), "plain")


def experiment(
    method: str,
    *assignments: str,
    replay: str | None = None,
    meta: bool = False,
    experiences: int = 4,
    teacher: TrainedTeacher | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Experiment:
    """A method on digits with its quick settings and further ones, built and seeded: the same one each time.

    Args:
        method: its name.
        assignments: settings, as after ``--set``.
        replay: by default that of the method's paper.
        meta: whether to take the LRA step.
        experiences: of two student steps each, if nothing else is set.
        teacher: by default `small_teacher`; a copy of it.
        keep: called with the record of each evaluation.
    """
    tree = quick(method, METHODS[method].memory if replay is None else replay, meta)
    short = [f"schedule={{epochs: {experiences}, experiences_per_epoch: 1, steps: null}}", "evaluation={every: 100}"]
    config = resolve([tree, *map(parse_assignment, [*short, *assignments])])
    teacher = copy.deepcopy(teacher or small_teacher())
    with torch.no_grad():
        teacher = replace(teacher, answers=teacher.network(FEW.images))
    seed_everything(0)
    return prepare(config, DIGITS, teacher, FEW, keep)
