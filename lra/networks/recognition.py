"""Recognise which network weights belong to, by their names and shapes, or say why that is not possible."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lra.images import Image
from lra.networks import build
from lra.networks.families import FAMILIES, VAGUE, Family, Shapes, Spelling, recipe_of
from lra.networks.foreign import torchvision_classifier, torchvision_classifiers
from lra.networks.weights import peelings, spelled

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
"""A tensor that all members of a family have, and how their names begin, so that few have to be built to compare."""

_TRANSFORM = "those that torchvision fetches were trained with transform_input, which this has not (a function can)"
DOUBTS = {
    "mobilenet_v2": "with strides for small images the weights are the same",
    "googlenet": _TRANSFORM,
    "inception_v3": _TRANSFORM,
}
"""What the weights of some networks do not show."""

_K = 997
"""Number of classes to build them with, which no other dimension of theirs has."""


@dataclass(frozen=True)
class Recognised:
    """The network that weights belong to.

    Attributes:
        names: of the network; if the weights do not decide, of all that have such weights.
        doubt: why the weights do not decide, or empty.
        classes: K.
        channels: of the images.
    """

    names: tuple[str, ...]
    doubt: str
    classes: int
    channels: int


class Unrecognised(ValueError):
    """The weights belong to no network that is known here."""


def recognise(loaded: Mapping[str, Any], image: Image) -> Recognised:
    """Find the network whose definition has these names and shapes of weights.

    It is one of those built here, or torchvision's. Nothing that changes what a network computes is guessed: where the
    weights do not determine strides, pooling or activation, all networks that may be meant are named, with the doubt.

    Args:
        loaded: what a checkpoint file holds.
        image: channels, height and width of the images it is to take; other numbers of channels are recognised too.

    Raises:
        Unrecognised: naming our nearest network, if none has such weights.
        ValueError: as `lra.networks.weights.unwrapped`.
    """
    layers = [_shapes(weights) for weights in peelings(loaded)]
    for shapes in layers:
        for channels in dict.fromkeys((image[0], 1, 3)):
            if found := _found(shapes, (channels, *image[1:])):
                return found
    for shapes in layers:
        if found := _of_torchvision(shapes):
            return found
    raise Unrecognised(_nearest(layers, image))


def _found(shapes: Shapes, image: Image) -> Recognised | None:
    classes = _classes(shapes)
    doubtful: dict[str, str] = {}
    for family, numbers in _candidates(shapes):
        name = family.name(*numbers)
        expected = _expected(name, classes, image)
        if any(_written(expected, spelling) == shapes for spelling in family.spellings):
            return Recognised((name,), "", classes, image[0])
        if {spelled(key, expected): shape for key, shape in shapes.items()} == expected:
            doubtful[name] = family.doubt
    if not doubtful:
        return None
    return Recognised(tuple(doubtful), next(iter(doubtful.values())), classes, image[0])


def _candidates(shapes: Shapes) -> Iterator[tuple[Family, tuple[int, ...]]]:
    """The member of each family to which these weights may belong, if its name denotes that network and no other."""
    seen = set()
    for family in FAMILIES:
        numbers = family.guess(shapes)
        if not family.valid(*numbers) or (name := family.name(*numbers)) in VAGUE:
            continue
        definition = (family.place, str(family.recipe(*numbers).options))
        if recipe_of(name) == family.recipe(*numbers) and definition not in seen:
            seen.add(definition)
            yield family, numbers


@lru_cache(maxsize=64)
def _expected(name: str, classes: int, image: Image) -> Shapes:
    """The shapes of a network's weights; empty if it does not exist for such images."""
    try:
        with torch.random.fork_rng(devices=[]), _Unmade():
            return _shapes(build(name, classes, image).state_dict())
    except ValueError:
        return {}


def _shapes(weights: Mapping[str, Tensor]) -> Shapes:
    # Old checkpoints lack BatchNorm's counters.
    return {name: tuple(value.shape) for name, value in weights.items() if not name.endswith("num_batches_tracked")}


def _classes(shapes: Shapes) -> int:
    """The outputs of the last linear layer."""
    return next((shape[0] for shape in reversed(list(shapes.values())) if len(shape) == 2), 1)


def _written(shapes: Shapes, spelling: Spelling) -> Shapes:
    written = {}
    for name, shape in shapes.items():
        for ours, theirs in spelling:
            name = name.replace(ours, theirs, 1)
        written[name] = shape
    return written


def _nearest(layers: list[Shapes], image: Image) -> str:
    """One line on the network that shares the most names with the weights."""
    best, said = -1.0, f"no network here takes images {image}"
    for shapes in layers:
        for family in FAMILIES:
            guess = family.guess(shapes)
            for numbers in [guess] if family.valid(*guess) else family.offered:
                name = family.name(*numbers)
                expected = _expected(name, _classes(shapes), image)
                for theirs in [_written(expected, spelling) for spelling in (*family.spellings, ())]:
                    common = shapes.keys() & theirs.keys()
                    alike = len(common) / len(shapes.keys() | theirs.keys())
                    if theirs and alike > best:
                        best, said = alike, f"the nearest is {name}{_differences(shapes, theirs)}"
    return said


def _differences(shapes: Shapes, theirs: Shapes) -> str:
    parts = []
    for what, names in (
        ("missing", [name for name in theirs if name not in shapes]),
        ("unknown", [name for name in shapes if name not in theirs]),
    ):
        if names:
            parts.append(f"{len(names)} {what} {names[:3]}")
    other = next((name for name in theirs if name in shapes and shapes[name] != theirs[name]), None)
    if other is not None:
        parts.append(f"{other} {shapes[other]} in place of {theirs[other]}")
    return ", with " + ", ".join(parts) if parts else ""


def _of_torchvision(shapes: Shapes) -> Recognised | None:
    """The classifier of torchvision that has exactly these names and shapes, for some number of classes."""
    for name in _torchvision_candidates(shapes):
        expected = _torchvision_shapes(name)
        if expected.keys() == shapes.keys() and (classes := _torchvision_classes(shapes, expected)) is not None:
            return Recognised((f"torchvision:{name}",), DOUBTS.get(name, ""), classes, 3)
    return None


def _torchvision_candidates(shapes: Shapes) -> Iterator[str]:
    beginnings = tuple(start for mark, starts in MARKS.items() if mark in shapes for start in starts)
    if beginnings:
        yield from (name for name in torchvision_classifiers() if name.startswith(beginnings))


def _torchvision_classes(shapes: Shapes, expected: Shapes) -> int | None:
    """K, if the shapes differ only in that."""
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
def _torchvision_shapes(name: str) -> Shapes:
    with torch.random.fork_rng(devices=[]), _Unmade():
        network = torchvision_classifier(name, _K)
    return _shapes(network.state_dict())


class _Unmade(TorchFunctionMode):
    """Weights are of the meta device, without memory or values; what a definition computes with is as ever.

    RegNet's needs that.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) and args[0].is_meta:
            return args[0]
        given = dict(kwargs or {})
        if func is torch.empty:
            given["device"] = "meta"
        return func(*args, **given)
