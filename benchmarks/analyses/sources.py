"""Images of several kinds to put before a teacher: real ones, noise, and what generators make."""

import copy
from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.runs.rebuilding import Rebuilt
from lra.benchmarks.setup.carrying import SYNTHETIC
from lra.benchmarks.setup.datasets import Labelled
from lra.images import unit
from lra.networks.composed import FusedGenerator


def real(data: Labelled, n: int) -> Labelled:
    """``n`` images as floats in [0, 1], drawn without repetition, all if there are fewer; with their classes."""
    chosen = torch.randperm(len(data.images))[:n]
    return Labelled(unit(data.images[chosen]), data.classes[chosen])


def synthetic(parts: Rebuilt, n: int) -> Tensor:
    """``n`` images of the last batch that the run synthesised, drawn without repetition, all if there are fewer.

    Raises:
        MissingInput: if it left none.
    """
    file = parts.folder / SYNTHETIC
    if not file.is_file():
        raise MissingInput(f"{file} does not exist: methods that synthesise batches leave one when a run is finished")
    images = load_file(file)["images"]
    return unit(images[torch.randperm(len(images))[:n]])


@torch.no_grad()
def generated(parts: Rebuilt, n: int) -> Tensor:
    """``n`` images of the run's generator, in evaluation mode."""
    return parts.generator(torch.randn(n, parts.latent))


@torch.no_grad()
def half_new(parts: Rebuilt, n: int, keep: str) -> Tensor:
    """``n`` images of a fused generator with one branch of the run's, its decoder, and a new branch.

    The new branch knows no running statistics: it normalises by the batch, the old parts by what they learnt.

    Args:
        parts: of a run of aeahl-rg.
        n: images.
        keep: the old branch: ``"second"``, which a later task would reuse, or ``"first"``, which is dropped.

    Raises:
        UsageError: if the run's generator is not a fused one.
    """
    if not isinstance(parts.generator, FusedGenerator):
        raise UsageError(f"method {parts.config.method!r} has no parts to reuse: give a run of aeahl-rg")
    old = parts.generator
    new = copy.deepcopy(old.first)
    for module in new.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm2d)):
            module.reset_parameters()
    fused = FusedGenerator(new.train(), copy.deepcopy(getattr(old, keep)).eval(), old.decoder)
    return fused(torch.randn(n, parts.latent))


def data_sources(parts: Rebuilt, n: int) -> Mapping[str, Tensor]:
    """The five sources of AEAHL-RG's bit-flip study: (n, C, H, W) in [0, 1] each, all normalised alike by the teacher.

    Raises:
        LraError: if the run is not one of aeahl-rg, or left no synthetic images.
    """
    return {
        "real": real(parts.data.load("train"), n).images,
        "noise": torch.rand(n, *parts.data.image),
        "new + dropped branch": half_new(parts, n, "first"),
        "new + reused branch": half_new(parts, n, "second"),
        "synthetic": synthetic(parts, n),
    }
