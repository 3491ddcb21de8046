"""Teachers trained here, on real images."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from lra.benchmarks.errors import LraError, UsageError
from lra.benchmarks.setup.config import TeacherOptions
from lra.benchmarks.setup.datasets import DataSet, normalisation
from lra.benchmarks.setup.networks import network_for
from lra.benchmarks.setup.weights_files import save_network
from lra.images import unit
from lra.networks.normalized import Normalized
from lra.synthesis.augmentation import flipped, shifted


def train(options: TeacherOptions, data: DataSet, path: Path, device: torch.device) -> None:
    """Train a teacher on the training split and write it to ``path``, leaving random states as they were.

    Raises:
        UsageError: if it would learn from single images.
        LraError: if it diverges.
    """
    real = data.load("train")
    if min(options.batch_size, len(real.images)) < 2:
        raise UsageError(
            f"teacher.batch_size = {options.batch_size} and data set {data.name} has {len(real.images)} to train on: "
            "a teacher learns from two images at a time at least"
        )
    scale = normalisation(data, real)
    images, classes = real.images.to(device), real.classes.to(device)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        body = network_for(options.network, data.classes, data.image, "teacher.network")
        network = Normalized(body, scale.mean, scale.std).to(device)
        optimiser = torch.optim.SGD(
            network.parameters(), lr=options.lr, momentum=0.9, weight_decay=options.weight_decay, nesterov=True
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.epochs)
        network.train()
        for _ in tqdm(range(options.epochs), "teacher", leave=False, disable=None):
            for chosen in torch.randperm(len(images)).split(options.batch_size):
                # BatchNorm knows no variance of a single image.
                if len(chosen) == 1:
                    continue
                shown = augmented(unit(images[chosen]), options.augment)
                loss = F.cross_entropy(network(shown), classes[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            if not loss.isfinite():
                raise LraError(f"the teacher has diverged, its loss is {loss.item()}: lower teacher.lr")
            schedule.step()
    notes = {
        "network": options.network,
        "classes": data.classes,
        "image": data.image,
        "mean": scale.mean,
        "std": scale.std,
    }
    save_network(path, network, notes | {"data": data.name, "recipe": options.model_dump()})


def augmented(images: Tensor, how: float | str) -> Tensor:
    """Images (n, C, H, W) in [0, 1], each changed on its own; see `TeacherOptions.augment`."""
    if isinstance(how, str):
        moved = shifted(images, images.shape[-1] // 8)
        return flipped(moved) if how == "crop-flip" else moved
    return shaken(images, how) if how else images


def shaken(images: Tensor, amount: float) -> Tensor:
    """Images (n, C, H, W) shifted, turned and zoomed a little, each on its own."""
    n = len(images)
    angle, zoom = (torch.rand(n) * 2 - 1) * amount * 1.4, 1 + (torch.rand(n) * 2 - 1) * amount * 0.8
    shift = (torch.rand(n, 2) * 2 - 1) * amount
    rows = [
        torch.stack([zoom * angle.cos(), -angle.sin(), shift[:, 0]], dim=1),
        torch.stack([angle.sin(), zoom * angle.cos(), shift[:, 1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
