"""Problems of every shape: two classes, one and three channels, odd sides. Runs work, or are refused in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lra.benchmarks.setup.datasets import Labelled
from lra.benchmarks.setup.datasets.labelled import DataSet
from lra.benchmarks.setup.experiment import prepare
from lra.benchmarks.setup.resolution import resolve
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.networks import build
from lra.networks.normalized import Normalized
from lra.strategies.methods import METHODS

pytestmark = pytest.mark.usefixtures("plain_report")

SHAPES = [((1, 10, 13), 3), ((3, 11, 9), 2)]
SMALL = {
    **{"latent": 16, "width": 8, "steps": 2, "images": 8, "rounds": 1, "warmup": 0, "bank": 16},
    **{"negatives": 16, "chunk": 48},
}
"""Options of methods that take them, to make a run short."""


def check_run(method: str, teacher: str, image: tuple[int, int, int], classes: int) -> None:
    """Distil a random teacher for a moment: losses and weights are numbers, images have the size of the problem."""
    fields = METHODS[method].Options.model_fields
    config = resolve(
        [
            {
                "method": method,
                "replay": "pool" if "images" in fields else "memory",
                "student": {"network": "lenet5-half", "lr": 0.01},
                "synthesis": {name: value for name, value in SMALL.items() if name in fields},
                "schedule": {"batch_size": 8, "steps_per_experience": 2, "experiences_per_epoch": 1, "epochs": 2},
                "evaluation": {"every": 1, "probes": 1, "probe_size": 6, "samples": 0},
            }
        ]
    )
    torch.manual_seed(0)
    mean, std = (0.5,) * image[0], (0.3,) * image[0]
    network = Normalized(build(teacher, classes, image), mean, std).eval()
    trained = TrainedTeacher(network, teacher, mean, std, "0" * 64, Path("random"), None)
    test = Labelled(torch.randint(256, (20, *image), dtype=torch.uint8), torch.arange(20) % classes)
    records: list[dict[str, Any]] = []
    built = prepare(config, DataSet("any", image, classes, lambda split: test), trained, test, records.append)
    built.strategy.train(built.stream)
    assert len(records) == 2
    assert all(math.isfinite(value) for record in records for value in record["losses"].values())
    assert all(value.isfinite().all() for value in built.strategy.model.state_dict().values())
    drawn = built.stream.synthesizer.peek(5)
    assert drawn.shape[1:] == image
    assert drawn.isfinite().all()


@pytest.mark.parametrize(("image", "classes"), SHAPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_images_of_the_size_of_the_problem(
    method: str, image: tuple[int, int, int], classes: int
) -> None:
    check_run(method, "resnet8", image, classes)


@pytest.mark.parametrize("method", ["dfq", "cmi", "rgal", "adadfkd"])
def test_methods_look_into_foreign_teachers(method: str) -> None:
    """BatchNorm statistics, features and stages, through hooks."""
    check_run(method, "torchvision:shufflenet_v2_x0_5", (3, 32, 32), 4)


def arrays(folder: Path, image: tuple[int, int, int], classes: int) -> str:
    """A data set of noise whose brightness tells the class, as a pair of files."""
    random, n = np.random.default_rng(0), 60
    for split in ("train", "test"):
        labels = np.arange(n) % classes
        level = (labels * 200 // classes)[:, None, None, None]
        images = (random.integers(0, 50, (n, *image[1:], image[0])) + level).astype(np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return f"npz:{folder}/{{split}}.npz"


PLAIN = ("teacher.epochs=8", "teacher.augment=0", "teacher.batch_size=20")
# The last batch of an epoch is one image alone.
MOVED = ("teacher.epochs=3", "teacher.augment=crop-flip", "teacher.batch_size=59")
SHORT = (
    *("schedule.batch_size=8", "schedule.steps_per_experience=2", "schedule.experiences_per_epoch=2"),
    *("synthesis.width=16", "evaluation.samples=4", "evaluation.probe_size=8"),
)
LITTLE = ("--set", "synthesis={images: 16, steps: 2, rounds: 1, warmup: 2}")
"""Synthesis of the default method for colour images, made short."""


@pytest.mark.parametrize(
    ("image", "classes", "student", "arguments", "recipe"),
    [
        ((3, 27, 31), 2, "lenet5-half", ("--replay", "generative", *LITTLE), MOVED),
        ((3, 32, 32), 10, "resnet20", ("--method", "predfkd"), PLAIN),
        ((3, 32, 32), 10, "resnet20", ("--preset", "dafl/cifar10/resnet34-resnet18"), PLAIN),
    ],
    ids=["two classes of odd size", "predfkd", "a cell of cifar"],
)
def test_from_a_users_arrays_to_a_student(
    lra_bench: Callable[..., Any],
    tmp_path: Path,
    image: tuple[int, int, int],
    classes: int,
    student: str,
    arguments: tuple[str, ...],
    recipe: tuple[str, ...],
) -> None:
    done = lra_bench(
        *("run", *arguments, "--dataset", arrays(tmp_path, image, classes), "--teacher", "resnet8"),
        *("--student", student, "--steps", "6", "--out", tmp_path / "runs", "--json"),
        *(part for setting in (*recipe, *SHORT) for part in ("--set", setting)),
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["student"]["name"] == student
    assert result["cost"]["student_steps"] == 6
