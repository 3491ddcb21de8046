"""Which of torchvision's classifiers weights are of: each has names and shapes that no other has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from lra.networks.families import Shapes
from lra.networks.foreign import torchvision_classifier, torchvision_classifiers

MARKS: Mapping[str, tuple[str, ...]] = {
    "conv1.weight": ("resnet", "resnext", "wide_resnet"),
    "features.0.weight": ("alexnet", "squeezenet", "vgg"),
    "features.conv0.weight": ("densenet",),
    "features.1.0.layer_scale": ("convnext",),
    "features.1.0.block.0.0.weight": ("efficientnet",),
    "features.1.block.0.0.weight": ("mobilenet_v3",),
    "features.1.0.norm1.weight": ("swin",),
    "features.1.conv.0.0.weight": ("mobilenet_v2",),
    "conv1.conv.weight": ("googlenet",),
    "Conv2d_1a_3x3.conv.weight": ("inception",),
    "layers.0.weight": ("mnasnet",),
    "stem.0.0.weight": ("maxvit",),
    "stem.0.weight": ("regnet",),
    "conv1.0.weight": ("shufflenet",),
    "class_token": ("vit",),
}
"""A tensor that all of a family have, and how their names begin: so that few are built to compare."""

_TRANSFORM = "those that torchvision fetches were trained with transform_input, which this has not (a function can)"
DOUBTS = {
    "mobilenet_v2": "with strides for small images the weights are the same",
    "googlenet": _TRANSFORM,
    "inception_v3": _TRANSFORM,
}
"""What the weights of some do not say."""

_K = 997
"""Classes to build them with: no other dimension of theirs is that."""


class Match(NamedTuple):
    """A classifier's name in torchvision, its number of classes, and what its weights do not say, or empty."""

    name: str
    classes: int
    doubt: str


def match(shapes: Shapes) -> Match | None:
    """The classifier of torchvision that has exactly these names and shapes, for some number of classes."""
    for name in _candidates(shapes):
        expected = _expected(name)
        if expected.keys() == shapes.keys() and (classes := _classes(shapes, expected)) is not None:
            return Match(name, classes, DOUBTS.get(name, ""))
    return None


def _candidates(shapes: Shapes) -> Iterator[str]:
    beginnings = tuple(start for mark, starts in MARKS.items() if mark in shapes for start in starts)
    if beginnings:
        yield from (name for name in torchvision_classifiers() if name.startswith(beginnings))


def _classes(shapes: Shapes, expected: Shapes) -> int | None:
    """K, if the shapes differ in that alone."""
    found = set()
    for name, shape in expected.items():
        if shape[:1] != (_K,):
            if shapes[name] != shape:
                return None
        elif shapes[name][1:] == shape[1:] and shapes[name]:
            found.add(shapes[name][0])
        else:
            return None
    return found.pop() if len(found) == 1 else None


@cache
def _expected(name: str) -> Shapes:
    with torch.random.fork_rng(devices=[]), _Unmade():
        network = torchvision_classifier(name, _K)
    weights = network.state_dict().items()
    return {key: tuple(value.shape) for key, value in weights if not key.endswith("num_batches_tracked")}


class _Unmade(TorchFunctionMode):
    """Weights are of the meta device, without memory; what a definition computes with is as ever, as RegNet's needs."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.empty:
            given["device"] = "meta"
        return func(*args, **given)
