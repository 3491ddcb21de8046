"""Every method with a teacher that names one class only, and with sizes that do not divide one another.

Images of every shape are in test_any_images.py.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from lra.benchmarks.setup.datasets import DataSet, Labelled
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.layers import parse_assignment
from lra.benchmarks.setup.resolution import resolve
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.networks.normalized import Normalized
from lra.strategies.methods import METHODS
from lra.strategies.replay import PoolReplay
from lra.synthesis.terms import CrossView, RingNCE

SMALL = {
    "cmi": ["synthesis.bank=20", "synthesis.negatives=7"],
    "adadfkd": ["synthesis.negatives=19"],
    "fast": ["synthesis.warmup=1"],
    "ssd": ["synthesis.warmup=1"],
    "aeahl-rg": ["synthesis.warmup=1"],
    "nayer": ["synthesis={warmup: 1, life: 2}"],
    "dlig": ["synthesis={warmup: 1, life: 2}"],
    "cpnet": ["synthesis={warmup: 2, warmup_life: 1, life: 2, prior: 1}"],
    "zskd": ["synthesis.rounds=2"],
    "zskt": ["synthesis={form: original, clip: 5}"],
    "dfme": ["synthesis.chunk=7"],
}
"""Sizes that do not divide one another; batches have 8 images."""


def odd(method: str, one_class: bool = False) -> Experiment:
    """Four experiences of a method with its paper's replay, on noise."""
    image, classes = (1, 12, 12), 3
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(image[0], 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
    more = nn.Sequential(nn.Conv2d(6, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    last = nn.Linear(9, classes)
    if one_class:
        last.bias.data[0] = 30.0
    mean, std = (0.4,) * image[0], (0.3,) * image[0]
    network = Normalized(nn.Sequential(features, more, nn.Flatten(), last), mean, std).eval()
    data = DataSet("noise", image, classes, lambda split: Labelled(torch.rand(6, *image), torch.zeros(6).long()))
    base = [
        "schedule={batch_size: 8, steps_per_experience: 2, experiences_per_epoch: 2, epochs: 2}",
        "evaluation={probes: 2, samples: 0, probe_size: 4}",
        "student={network: resnet8, lr: 0.01}",
        "synthesis.width=4" if "width" in METHODS[method].Options.model_fields else "synthesis.triplet=0",
    ]
    if METHODS[method].memory == "pool":
        base += ["synthesis={images: 9, steps: 2}", "replay={capacity: 25, policy: fifo}"]
    layers = [
        {"method": method, "replay": METHODS[method].memory},
        *map(parse_assignment, base + SMALL.get(method, [])),
    ]
    trained = TrainedTeacher(network, "odd", mean, std, "0" * 64, Path("odd"), None)
    return prepare(resolve(layers), data, trained, data.load("test"), lambda record: None)


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_that_names_one_class_makes_no_nan(method: str) -> None:
    built = odd(method, one_class=True)
    built.strategy.train(built.stream)
    assert all(value.isfinite().all() for value in built.strategy.model.state_dict().values())
    assert math.isfinite(built.strategy.loss.item())


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].memory == "pool"])
def test_no_more_is_kept_than_was_said(method: str) -> None:
    built = odd(method)
    built.strategy.train(built.stream)
    (replay,) = (plugin for plugin in built.strategy.plugins if isinstance(plugin, PoolReplay))
    assert replay.pool.seen >= 4 * 9
    assert len(replay.pool) == len(replay.state_dict()["pool"]["rows"][0]) == 25
    assert all(len(term.bank) <= 20 for term in built.stream.synthesizer.terms if isinstance(term, CrossView))


def test_the_queue_of_negatives_stays_as_long_as_it_was_said() -> None:
    built = odd("adadfkd")
    built.strategy.train(built.stream)
    (ring,) = (term for term in built.stream.synthesizer.terms if isinstance(term, RingNCE))
    assert (len(ring.queue), ring.queue.pushed) == (19, 19 + 4 * 8)
