"""Problems of every shape: two classes, one and three channels, odd sides. Runs work, or are refused in one line."""

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

SHAPES = [((1, 11, 9), 2), ((3, 10, 13), 3)]
SMALL = {
    **{"latent": 16, "width": 8, "steps": 2, "images": 8, "rounds": 1, "warmup": 0, "bank": 16},
    **{"negatives": 16, "chunk": 48},
}
"""Options of methods that take them, to make a run short."""


def check_run(method: str, teacher: str, image: tuple[int, int, int], classes: int) -> None:
    """Distil a random teacher for a moment: all losses are numbers, and images have the size of the problem."""
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


def arrays(folder: Path, image: tuple[int, int, int], classes: int, n: int = 60) -> str:
    """A data set of noise whose brightness tells the class, as a pair of files."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        labels = np.arange(n) % classes
        level = (labels * 200 // classes)[:, None, None, None]
        images = (random.integers(0, 50, (n, *image[1:], image[0])) + level).astype(np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return f"npz:{folder}/{{split}}.npz"


def settings(**given: object) -> list[str]:
    return [part for name, value in given.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


def test_two_classes_of_odd_size_from_file_to_student(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    data = arrays(tmp_path, (3, 27, 31), 2)
    small = settings(
        teacher__epochs=3,
        teacher__augment="crop-flip",
        teacher__batch_size=59,
        schedule__batch_size=8,
        schedule__experiences_per_epoch=1,
        evaluation__samples=4,
        evaluation__probe_size=8,
    )
    done = lra_bench(
        *("run", "--dataset", data, "--teacher", "resnet8", "--student", "lenet5-half", "--replay", "generative"),
        *("--steps", "20", "--out", tmp_path / "runs", *small, "--json"),
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "arguments", [("--method", "predfkd"), ("--preset", "dafl/cifar10/resnet34-resnet18")], ids=lambda given: given[1]
)
def test_cells_of_cifar_run_on_a_users_arrays(
    lra_bench: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    data = arrays(tmp_path, (3, 32, 32), 10, n=40)
    small = settings(
        teacher__epochs=8,
        teacher__augment=0,
        teacher__batch_size=20,
        schedule__batch_size=8,
        schedule__steps_per_experience=2,
        schedule__experiences_per_epoch=2,
        synthesis__width=16,
        evaluation__samples=4,
        evaluation__probe_size=8,
    )
    done = lra_bench(
        *("run", *arguments, "--dataset", data, "--teacher", "resnet8", "--student", "resnet20"),
        *("--steps", "6", "--out", tmp_path / "runs", *small, "--json"),
    )
    assert done.code == 0, done.err
