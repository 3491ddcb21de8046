"""Teachers: trained here once and kept by content, or brought along as a file that is never trusted to run code."""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from platformdirs import user_cache_path
from pydantic import BaseModel, Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from lra.benchmarks.errors import LraError, MissingInput, UsageError
from lra.benchmarks.files import sha256, write_atomically
from lra.benchmarks.setup.datasets import DataSet, Labelled
from lra.networks import build
from lra.networks.normalized import Normalized
from lra.networks.weights import load_weights
from lra.options import Count, NonNegative, Options, Positive
from lra.preservation import in_mode

FORMAT = "lra-teacher-2"
"""Names our notes in a file: the only entry, because safetensors writes several in any order."""


class TeacherOptions(Options):
    """Which teacher: a file, or a network trained here with this recipe."""

    network: str = "resnet34"
    file: str | None = None
    """Weights: safetensors (ours say all by themselves) or a state dict (say network, mean and std too)."""
    mean: list[float] | None = None
    std: list[float] | None = None
    epochs: Count = 100
    lr: Positive = 0.1
    weight_decay: NonNegative = 5e-4
    batch_size: Count = 128
    augment: Annotated[float, Field(ge=0, le=1)] = 0.12
    """Random affine augmentation: shift as a fraction of half the side; turns and zooms in proportion."""
    seed: Annotated[int, Field(ge=0)] = 0


class Notes(BaseModel):
    """What our weights files say of themselves; other files say nothing."""

    network: str | None = None
    image: tuple[int, int, int] | None = None
    classes: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher network with where it comes from.

    Attributes:
        network: images in [0, 1] -> logits.
        name: of its architecture.
        mean, std: its normalisation.
        sha256: of its file.
        path: its file.
        accuracy: on the test set in percent, ``None`` without one.
    """

    network: Normalized
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    path: Path
    accuracy: float | None

    def record(self) -> dict[str, Any]:
        """For ``teacher.json`` and ``result.json``."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "accuracy": self.accuracy,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def cache_folder() -> Path:
    """Where trained teachers are kept: ``$LRA_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("LRA_CACHE") or user_cache_path("lra")) / "teachers"


def obtain(options: TeacherOptions, data: DataSet, test: Labelled | None) -> TrainedTeacher:
    """Load the teacher's file, or the cached result of its recipe, or train it; then check it.

    Raises:
        MissingInput: if its file does not exist.
        UsageError: if the file is corrupt or unsafe, or does not fit the data.
        LraError: if it does no better than chance.
    """
    path = Path(options.file) if options.file else cached_path(options, data)
    if not options.file and not path.is_file():
        train(options, data, path)
    network, name, mean, std = _load(path, options, data)
    accuracy = None if test is None else accuracy_of(network, test)
    if accuracy is not None:
        refuse_chance(accuracy, data.classes, path)
    return TrainedTeacher(network, name, mean, std, sha256(path), path, accuracy)


def cached_path(options: TeacherOptions, data: DataSet) -> Path:
    """The file that the recipe's teacher is kept in, named by everything that determines it."""
    recipe = options.model_dump(exclude={"file", "mean", "std"}) | {
        "data": data.name,
        "image": data.image,
        "format": FORMAT,
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    label = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(data.name).stem)
    return cache_folder() / f"{options.network}-{label}-{key}.safetensors"


def train(options: TeacherOptions, data: DataSet, path: Path) -> None:
    """Train a teacher on the training split and write it to ``path``, leaving random states as they were."""
    real = data.load("train")
    mean = tuple(real.images.mean(dim=(0, 2, 3)).tolist())
    std = tuple(real.images.std(dim=(0, 2, 3)).clamp_min(1e-3).tolist())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = Normalized(_build(options.network, data), mean, std)
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=options.lr,
            momentum=0.9,
            weight_decay=options.weight_decay,
            nesterov=True,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.epochs)
        network.train()
        for _ in range(options.epochs):
            for chosen in torch.randperm(len(real.images)).split(options.batch_size):
                images = shaken(real.images[chosen], options.augment)
                loss = F.cross_entropy(network(images), real.classes[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            schedule.step()
    notes = {
        "network": options.network,
        "classes": data.classes,
        "image": data.image,
        "mean": mean,
        "std": std,
    }
    save_teacher(path, network, notes | {"data": data.name, "recipe": options.model_dump()})


def shaken(images: Tensor, amount: float) -> Tensor:
    """Images (n, C, H, W) shifted, turned and zoomed a little, each on its own."""
    if amount == 0:
        return images
    n = len(images)
    angle, zoom = (torch.rand(n) * 2 - 1) * amount * 1.4, 1 + (torch.rand(n) * 2 - 1) * amount * 0.8
    shift = (torch.rand(n, 2) * 2 - 1) * amount
    rows = [
        torch.stack([zoom * angle.cos(), -angle.sin(), shift[:, 0]], dim=1),
        torch.stack([angle.sin(), zoom * angle.cos(), shift[:, 1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def save_teacher(path: Path, network: Normalized, notes: Mapping[str, Any]) -> None:
    """Write weights and what is needed to use them, as safetensors."""
    tensors = {name: tensor.contiguous() for name, tensor in network.network.state_dict().items()}
    write_atomically(path, lambda file: file.write(save(tensors, {FORMAT: json.dumps(notes)})))


def accuracy_of(network: torch.nn.Module, test: Labelled) -> float:
    """Percent right on labelled images."""
    with torch.no_grad(), in_mode(network, training=False):
        answers = torch.cat([network(part).argmax(dim=1) for part in test.images.split(512)])
    return 100 * (answers == test.classes).double().mean().item()


def refuse_chance(accuracy: float, classes: int, path: Path) -> None:
    """Raise `LraError` for an accuracy less than a tenth of the way from chance to perfect."""
    chance = 100 / classes
    if accuracy < chance + (100 - chance) / 10:
        raise LraError(
            f"teacher {path.name} is right on {accuracy:.1f} % of the test set and chance is {chance:.1f} %: "
            "check its network, its normalisation (teacher.mean, teacher.std) and the data set"
        )


def _build(name: str, data: DataSet) -> torch.nn.Module:
    try:
        return build(name, data.classes, data.image)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _load(
    path: Path, options: TeacherOptions, data: DataSet
) -> tuple[Normalized, str, tuple[float, ...], tuple[float, ...]]:
    if not path.is_file():
        raise MissingInput(f"teacher file {path} does not exist: train one with lra-bench teacher train")
    content, notes = read_weights(path)
    name = notes.network or options.network
    image, classes = notes.image or data.image, notes.classes or data.classes
    if (image, classes) != (data.image, data.classes):
        raise UsageError(
            f"teacher {path.name} takes images {image} of {classes} classes and {data.name} has "
            f"{data.image} of {data.classes}: choose a teacher of this data"
        )
    mean, std = options.mean or notes.mean, options.std or notes.std
    if mean is None or std is None:
        raise UsageError(f"teacher {path.name} does not say its normalisation: give teacher.mean and teacher.std")
    try:
        network = Normalized(_build(name, data), mean, std)
    except ValueError as error:
        raise UsageError(f"teacher {path.name}, its normalisation (teacher.mean, teacher.std): {error}") from None
    if len(mean) != data.image[0]:
        raise UsageError(f"teacher {path.name}: teacher.mean has {len(mean)} channels and the images {data.image[0]}")
    _fill(network.network, content, path)
    return network, name, tuple(mean), tuple(std)


def _fill(network: torch.nn.Module, content: Mapping[str, Any], path: Path) -> None:
    try:
        load_weights(network, content)
    except ValueError as error:
        raise UsageError(f"teacher {path.name}: {error}; say teacher.network") from None
    weights = network.state_dict().items()
    broken = next((name for name, tensor in weights if not bool(torch.isfinite(tensor).all())), None)
    if broken:
        raise UsageError(f"teacher {path.name} has NaN or infinite weights in {broken}: train or fetch it again")


def read_weights(path: Path) -> tuple[Mapping[str, Any], Notes]:
    """What a weights file holds, and our notes in it, without running anything.

    Safetensors, or a pickled checkpoint read by torch's restricted loader.

    Raises:
        UsageError: if the file is corrupt or would run code.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"weights file {path} is corrupt or would run code when loaded, which is refused: "
            "save a plain state dict, or safetensors"
        ) from None
    # The loader of a damaged file may raise anything: IndexError, struct.error, AssertionError, ...
    except Exception as error:
        line = str(error).split("\n")[0]
        raise UsageError(f"weights file {path} cannot be read ({line}): fetch or save it again") from None
    if not isinstance(content, Mapping):
        raise UsageError(f"weights file {path} holds no state dict: save network.state_dict()")
    return content, Notes()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Notes]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors, Notes.model_validate_json(metadata.get(FORMAT, "{}"))
