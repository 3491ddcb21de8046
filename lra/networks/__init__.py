"""Teachers and students by name; every one takes normalised images (n,C,H,W) and returns logits (n,K)."""

import difflib
from collections.abc import Callable
from functools import partial

from torch import nn

from lra.networks.cifar_resnet import CifarResNet, WideStemResNet
from lra.networks.foreign import build_foreign, is_foreign
from lra.networks.lenet import AdvertorchLeNet, LeNet5, mlp
from lra.networks.small_images import mobilenetv2, resnet, vgg11
from lra.networks.wide_resnet import WideResNet

NETWORKS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5-half": partial(LeNet5, half=True),
    "lenet5-bn": partial(LeNet5, norm=True),
    "lenet5-half-bn": partial(LeNet5, half=True, norm=True),
    "advertorch-lenet": AdvertorchLeNet,
    "mlp": mlp,
    "resnet8": partial(CifarResNet, depth=8),
    "resnet20": partial(CifarResNet, depth=20),
    "resnet32": partial(CifarResNet, depth=32),
    "resnet44": partial(CifarResNet, depth=44),
    "resnet56": partial(CifarResNet, depth=56),
    "resnet8-wide-stem": partial(WideStemResNet, depth=8),
    "resnet32-wide-stem": partial(WideStemResNet, depth=32),
    "resnet18": partial(resnet, depth=18),
    "resnet34": partial(resnet, depth=34),
    "wrn10-1": partial(WideResNet, depth=10, widen=1),
    "wrn16-1": partial(WideResNet, depth=16, widen=1),
    "wrn16-2": partial(WideResNet, depth=16, widen=2),
    "wrn28-1": partial(WideResNet, depth=28, widen=1),
    "wrn40-1": partial(WideResNet, depth=40, widen=1),
    "wrn40-2": partial(WideResNet, depth=40, widen=2),
    "vgg11": vgg11,
    "mobilenetv2": mobilenetv2,
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
