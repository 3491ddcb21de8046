"""Teachers and students by name; every one takes normalised images (n,C,H,W) and returns logits (n,K).

Names can be looked up without torch, which is imported once a network is built.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from lra.networks.foreign import build_foreign, is_foreign

if TYPE_CHECKING:
    from torch import nn

    Constructor: TypeAlias = Callable[[int, tuple[int, int, int]], nn.Module]


def _ours(where: str, **settings: Any) -> Constructor:
    """The constructor ``module:name`` of this package with ``settings``, imported when it is called."""
    module, _, name = where.partition(":")

    def construct(classes: int, image: tuple[int, int, int]) -> nn.Module:
        return getattr(importlib.import_module(f"lra.networks.{module}"), name)(classes, image, **settings)

    return construct


NETWORKS: dict[str, Constructor] = {
    "lenet5": _ours("lenet:LeNet5"),
    "lenet5-half": _ours("lenet:LeNet5", half=True),
    "lenet5-bn": _ours("lenet:LeNet5", norm=True),
    "lenet5-half-bn": _ours("lenet:LeNet5", half=True, norm=True),
    "advertorch-lenet": _ours("lenet:AdvertorchLeNet"),
    "mlp": _ours("lenet:mlp"),
    "resnet8": _ours("cifar_resnet:CifarResNet", depth=8),
    "resnet20": _ours("cifar_resnet:CifarResNet", depth=20),
    "resnet32": _ours("cifar_resnet:CifarResNet", depth=32),
    "resnet44": _ours("cifar_resnet:CifarResNet", depth=44),
    "resnet56": _ours("cifar_resnet:CifarResNet", depth=56),
    "resnet8-wide-stem": _ours("cifar_resnet:WideStemResNet", depth=8),
    "resnet32-wide-stem": _ours("cifar_resnet:WideStemResNet", depth=32),
    "resnet18": _ours("small_images:resnet", depth=18),
    "resnet34": _ours("small_images:resnet", depth=34),
    "wrn10-1": _ours("wide_resnet:WideResNet", depth=10, widen=1),
    "wrn16-1": _ours("wide_resnet:WideResNet", depth=16, widen=1),
    "wrn16-2": _ours("wide_resnet:WideResNet", depth=16, widen=2),
    "wrn28-1": _ours("wide_resnet:WideResNet", depth=28, widen=1),
    "wrn40-1": _ours("wide_resnet:WideResNet", depth=40, widen=1),
    "wrn40-2": _ours("wide_resnet:WideResNet", depth=40, widen=2),
    "vgg11": _ours("small_images:vgg11"),
    "mobilenetv2": _ours("small_images:mobilenetv2"),
}
"""Name to constructor, called with the number of classes and the image's (channels, height, width)."""


def build(name: str, classes: int, image: tuple[int, int, int]) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global generator.

    Args:
        name: one of `NETWORKS`, where underscores may stand for hyphens, or one from elsewhere, see `build_foreign`.
        classes: number of classes K, at least 1.
        image: channels, height and width.

    Raises:
        ValueError: if the name is unknown, or the network cannot take such images.
        ModuleNotFoundError: if it is in a package that is not installed.
    """
    if classes < 1:
        raise ValueError(f"a network needs at least 1 class; got {classes}")
    if is_foreign(name):
        return build_foreign(name, classes, image)
    constructor = NETWORKS.get(name.lower().replace("_", "-"))
    if constructor is None:
        near = difflib.get_close_matches(name.lower().replace("_", "-"), NETWORKS, n=1, cutoff=0)
        raise ValueError(f"unknown network {name!r}; did you mean {near[0]!r}? Valid: {', '.join(NETWORKS)}")
    return constructor(classes, image)
