"""Images of several kinds to put before a teacher: real ones, noise, and what generators make."""

import copy
from collections.abc import Mapping
from contextlib import suppress

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lra.benchmarks.errors import MissingInput
from lra.benchmarks.records import SYNTHETIC
from lra.benchmarks.runs.rebuilding import Rebuilt
from lra.benchmarks.setup.datasets import Labelled
from lra.images import unit
from lra.networks.composed import FusedGenerator


def real(data: Labelled, n: int) -> Labelled:
    """``n`` images as floats in [0, 1], drawn without repetition, all if there are fewer; with their classes."""
    chosen = torch.randperm(len(data.images))[:n]
    return Labelled(unit(data.images[chosen]), data.classes[chosen])


def synthetic(parts: Rebuilt, n: int) -> Tensor | None:
    """``n`` images of the last batch that the run synthesised, drawn without repetition, all if there are fewer.

    ``None`` if its method synthesises no batches.
    """
    file = parts.folder / SYNTHETIC
    if not file.is_file():
        return None
    images = load_file(file)["images"]
    return unit(images[torch.randperm(len(images))[:n]])


def made(parts: Rebuilt, n: int) -> dict[str, Tensor]:
    """``n`` images of each kind that a run left: ``synthetic``, its last batch; ``generated``, by its generator."""
    batch = synthetic(parts, n)
    count = n if batch is None else len(batch)
    found = {"synthetic": batch, "generated": parts.imagine(count)}
    return {name: images for name, images in found.items() if images is not None}


@torch.no_grad()
def half_new(old: FusedGenerator, n: int, keep: str) -> Tensor:
    """``n`` images of a fused generator with one branch of the run's, its decoder, and a new branch.

    The new branch knows no running statistics: it normalises by the batch, the old parts by what they learnt.

    Args:
        old: the generator of a run of aeahl-rg.
        n: images.
        keep: the old branch: ``"second"``, which a later task would reuse, or ``"first"``, which is dropped.
    """
    new = copy.deepcopy(old.first)
    for module in new.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm2d)):
            module.reset_parameters()
    fused = FusedGenerator(new.train(), copy.deepcopy(getattr(old, keep)).eval(), old.decoder)
    return fused(torch.randn(n, old.latent))


def data_sources(parts: Rebuilt, n: int) -> Mapping[str, Tensor]:
    """What an attacker may have, by name: (n, C, H, W) in [0, 1] each, all normalised alike by the teacher.

    Real images where there are some to train on, noise, and what the run made; of one of aeahl-rg in place of its
    generator's images those of a new one with parts of it (the five sources of its bit-flip study).
    """
    found = {"noise": torch.rand(n, *parts.data.image)}
    with suppress(MissingInput):
        found = {"real": real(parts.data.load("train"), n).images} | found
    images = made(parts, n)
    if isinstance(parts.generator, FusedGenerator):
        del images["generated"]
        found["new + dropped branch"] = half_new(parts.generator, n, "first")
        found["new + reused branch"] = half_new(parts.generator, n, "second")
    return found | images
