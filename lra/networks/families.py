"""The networks that exist: families, the names of their members, and how their weights are recognised.

Names are handled without importing torch; a member's definition is imported when it is built.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

Shapes = Mapping[str, tuple[int, ...]]
"""The names in a state dict with the shapes of their tensors, without BatchNorm's counters."""

Spelling = tuple[tuple[str, str], ...]
"""Replacements from our names to those of another definition of the same function."""

OURS: Spelling = ()
SHORTCUT: Spelling = ((".downsample.", ".shortcut."), ("fc.", "linear."))
"""The spelling of the CIFAR ResNets of kuangliu/pytorch-cifar, and of CMI's, which follow them."""


class Recipe(NamedTuple):
    """A definition, as ``module:function`` in `lra.networks`, and its arguments after classes and image."""

    place: str
    options: Mapping[str, Any]


def _other_activations(pooling: str = "") -> str:
    return f"another activation than ReLU{pooling} would have the same weights"


@dataclass(frozen=True)
class Family:
    """Networks of one definition.

    Attributes:
        form: pattern of their names, with numbers in braces.
        place: see `Recipe`.
        summary: one line, with what the weights do not show.
        options: arguments common to all of them.
        offered: numbers of those that are listed by name.
        valid: whether a network with these numbers exists.
        sizes: the same in words.
        guess: the numbers that weights of these shapes would have.
        spellings: names that identify the weights beyond doubt, because only one public definition uses them.
        doubt: which other networks have such weights, where no such name decides, or another spelling is used.
    """

    form: str
    place: str
    summary: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    offered: tuple[tuple[int, ...], ...] = ((),)
    valid: Callable[..., bool] = lambda *numbers: True
    sizes: str = ""
    guess: Callable[[Shapes], tuple[int, ...]] = lambda shapes: ()
    spellings: tuple[Spelling, ...] = (OURS,)
    doubt: str = "a network with other names in its definition may be another function"

    def name(self, *numbers: int) -> str:
        """The name of the member with these numbers."""
        return self.form.format(**dict(zip(self._keys(), numbers, strict=True)))

    def names(self) -> list[str]:
        """The names that are listed, and the pattern of all others."""
        others = [f"{self.form}, depth {self.sizes}"] if self.sizes else []
        return [*(self.name(*numbers) for numbers in self.offered), *others]

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """The numbers in a `canonical` name of this form, whether there is such a member or not."""
        found = re.fullmatch(re.sub(r"\\{\w+\\}", r"([1-9]\\d{0,3})", re.escape(self.form)), name)
        return None if found is None else tuple(map(int, found.groups()))

    def recipe(self, *numbers: int) -> Recipe:
        """How the member with these numbers is built."""
        return Recipe(self.place, {**self.options, **dict(zip(self._keys(), numbers, strict=True))})

    def _keys(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.form)


def _convolutions(shapes: Shapes, *kernel: int) -> int:
    """The number of convolutions, with this kernel size if given."""
    return sum(len(shape) == 4 and (not kernel or shape[2:] == kernel) for shape in shapes.values())


def _depth(more: int) -> Callable[[Shapes], tuple[int, ...]]:
    """The depth that counts 3x3 convolutions and ``more``."""
    return lambda shapes: (_convolutions(shapes, 3, 3) + more,)


def _of(depths: Mapping[int, int]) -> Callable[[Shapes], tuple[int, ...]]:
    """The depth, by the number of convolutions."""
    return lambda shapes: (depths.get(_convolutions(shapes), 0),)


def _wide(shapes: Shapes) -> tuple[int, ...]:
    inputs = [shape[1] for shape in shapes.values() if len(shape) == 2]
    return _convolutions(shapes, 3, 3) + 3, inputs[-1] // 64 if inputs else 0


def _steps(rest: int, but: tuple[int, ...] = ()) -> Callable[..., bool]:
    """Whether the depth is 6n + ``rest`` for n of at least 1, and none of ``but``."""
    return lambda depth, widen=1: depth % 6 == rest and depth > rest and depth not in but and widen > 0


_CONVOLUTIONS_OF_RESNET = {20: 18, 36: 34, 53: 50, 104: 101, 155: 152}
"""The number of its convolutions, shortcuts counted, to a ResNet's depth."""
_CONVOLUTIONS_OF_VGG = {5: 8, 8: 11, 10: 13, 13: 16, 16: 19}
_MAX_POOL = "with and without max-pooling after the stem the weights are the same"
_STRIDES = "torchvision's strides (32 in all) and those for small images (8) have the same weights"
_LENET = _other_activations(", or average for max-pooling, or other padding")
_RESNETS = "lra.networks.resnets:"
_SMALL = "lra.networks.small_images:"

_SIXES: dict[str, Any] = {"valid": _steps(2), "sizes": "6n+2", "guess": _depth(1)}
_IMAGENET: dict[str, Any] = {
    "offered": ((18,), (34,), (50,)),
    "valid": lambda depth: depth in _CONVOLUTIONS_OF_RESNET.values(),
    "sizes": "18, 34, 50, 101 or 152",
    "guess": _of(_CONVOLUTIONS_OF_RESNET),
    "doubt": _MAX_POOL,
}

FAMILIES = (
    Family("lenet5", _SMALL + "LeNet5", "ReLU and max-pooling", spellings=(), doubt=_LENET),
    Family("lenet5-half", _SMALL + "LeNet5", "half as wide", {"half": True}, spellings=(), doubt=_LENET),
    Family("lenet5-bn", _SMALL + "LeNet5", "with BatchNorm", {"norm": True}, spellings=(), doubt=_LENET),
    Family("lenet5-half-bn", _SMALL + "LeNet5", "both", {"half": True, "norm": True}, spellings=(), doubt=_LENET),
    Family("advertorch-lenet", _SMALL + "AdvertorchLeNet", "two 3x3 convolutions, ReLU and max-pooling"),
    Family("mlp", _SMALL + "mlp", "one hidden layer of 32, ReLU", spellings=(), doubt=_other_activations()),
    Family(
        "resnet{depth}",
        _RESNETS + "CifarResNet",
        "He et al.'s for CIFAR, 16-32-64 channels, shortcuts without parameters (option A)",
        offered=((8,), (20,), (32,), (44,), (56,)),
        valid=_steps(2, but=(50, 152)),
        sizes="6n+2",
        guess=_depth(1),
    ),
    Family(
        "resnet{depth}-a",
        _RESNETS + "CifarResNet",
        "the same, of any depth 6n+2 (resnet50 is another)",
        offered=(),
        **_SIXES,
    ),
    Family(
        "resnet{depth}-b",
        _RESNETS + "ProjectionResNet",
        "16-32-64 channels, 1x1 convolutions as shortcuts (option B)",
        offered=((20,), (56,)),
        **_SIXES,
        spellings=(OURS, SHORTCUT),
    ),
    Family(
        "resnet{depth}x4",
        _RESNETS + "ProjectionResNet",
        "32-64-128-256 channels, option B",
        {"widths": (32, 64, 128, 256)},
        offered=((8,), (32,)),
        **_SIXES,
        spellings=(OURS, SHORTCUT),
    ),
    Family(
        "resnet{depth}-wide-stem",
        _RESNETS + "WideStemResNet",
        "64-16-32-64 channels, ReLU after stages, not blocks",
        offered=((8,), (20,), (32,)),
        **_SIXES,
    ),
    Family(
        "resnet{depth}",
        _SMALL + "resnet",
        "He et al.'s for ImageNet, 3x3 stem without max-pooling",
        **_IMAGENET,
        spellings=(SHORTCUT,),
    ),
    Family(
        "resnet{depth}-maxpool",
        _SMALL + "resnet",
        "the same with max-pooling after the stem",
        {"pooled": True},
        **_IMAGENET,
        spellings=(),
    ),
    Family(
        "wrn{depth}-{widen}",
        _RESNETS + "WideResNet",
        "wide ResNet, 16-32-64 channels times the second number",
        offered=((10, 1), (16, 1), (16, 2), (28, 1), (40, 1), (40, 2)),
        valid=_steps(4),
        sizes="6n+4",
        guess=_wide,
        spellings=(OURS, (("linear.", "fc."), *((f"layer{i}.layer.", f"block{i}.layer.") for i in (1, 2, 3)))),
    ),
    Family(
        "vgg11",
        _SMALL + "vgg11",
        "four max-poolings, one linear layer, BatchNorm",
        spellings=(),
        doubt="with another number of max-poolings the weights are the same",
    ),
    Family(
        "vgg{depth}-cmi",
        _SMALL + "CMIVGG",
        "CMI's: three max-poolings, four where images are 64 pixels high; BatchNorm",
        offered=((8,), (11,), (13,)),
        valid=lambda depth: depth in _CONVOLUTIONS_OF_VGG.values(),
        sizes="8, 11, 13, 16 or 19",
        guess=_of(_CONVOLUTIONS_OF_VGG),
    ),
    Family("mobilenetv2", _SMALL + "mobilenetv2", "total stride 8", spellings=(), doubt=_STRIDES),
    Family("mobilenetv2-stride8", _SMALL + "mobilenetv2", "the same, by its full name", spellings=(), doubt=_STRIDES),
    Family(
        "mobilenetv2-cmi",
        _SMALL + "mobilenetv2",
        "CMI's and torchvision's: total stride 32",
        {"stride": 32},
        spellings=(),
        doubt=_STRIDES,
    ),
)
"""All networks that can be built here."""

VAGUE = ("mobilenetv2",)
"""Names that do not identify a weights file: public networks of these names differ from those built here."""


def canonical(name: str) -> str:
    """A network's name as written here: ``WRN_28_10`` and ``wrn-28-10`` become ``wrn28-10``."""
    return re.sub(r"(?<=[a-z])-(?=\d)", "", name.lower().replace("_", "-"))


def vaguer(name: str, other: str) -> bool:
    """Whether ``name`` is ``other``, or omits what follows a hyphen there: ``vgg11`` for ``vgg11-cmi``."""
    return other == name or other.startswith(f"{name}-")


@cache
def recipe_of(name: str) -> Recipe | None:
    """How the network of this name is built; ``None`` if it does not exist here."""
    found = _member(name)
    return None if found is None else found[0].recipe(*found[1])


def summary_of(name: str) -> str | None:
    """A one-line description of the network of this name; ``None`` if it does not exist here."""
    found = _member(name)
    return None if found is None else found[0].summary


def _member(name: str) -> tuple[Family, tuple[int, ...]] | None:
    for family in FAMILIES:
        numbers = family.numbers(canonical(name))
        if numbers is not None and family.valid(*numbers):
            return family, numbers
    return None
