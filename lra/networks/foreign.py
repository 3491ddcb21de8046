"""External networks: torchvision's, timm's, or a user's own function."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from lra.images import Image


LIBRARIES = ("torchvision", "timm")
"""What may precede the colon, besides a user's module."""


ELSEWHERE = {
    "torchvision:NAME": "a torchvision classifier, unchanged",
    "timm:NAME": "a timm model (timm is an optional extra)",
    "MODULE:FUNCTION": "your own function, called with the number of classes and (channels, height, width)",
}
"""The names of external networks, and what they are."""


def is_foreign(name: str) -> bool:
    """Whether ``name`` is one of ``torchvision:NAME``, ``timm:NAME``, ``package.module:function``."""
    return ":" in name


def runs_user_code(name: str) -> bool:
    """Whether building ``name`` imports a module given in the name itself."""
    return is_foreign(name) and name.partition(":")[0] not in LIBRARIES


def build_foreign(name: str, classes: int, image: Image, trains: bool = True, auxiliary: bool = False) -> nn.Module:
    """Build an external network with fresh weights, and try it on two black images.

    Args:
        name: ``torchvision:NAME`` or ``timm:NAME`` of a classifier, or ``package.module:function``, which is called
            with the number of classes and the image's shape, and returns a module.
        classes: K.
        image: channels, height and width.
        trains: whether it must work in training mode too.
        auxiliary: whether it may then return logits of auxiliary classifiers after its own.

    Raises:
        ModuleNotFoundError: if the module is not installed.
        ValueError: if there is no such network, or it does not map images (n,C,H,W) to logits (n,K).
    """
    from torch import nn

    origin, _, rest = name.partition(":")
    libraries = {"torchvision": _torchvision, "timm": _timm}
    make = libraries.get(origin, partial(_own, origin))(rest, classes, image)
    try:
        network = make()
    # Whatever somebody else's code raises.
    except Exception as error:
        raise ValueError(
            f"network {name!r} cannot be built for {classes} classes of {image}: {_line(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"network {name!r} is not a torch module but {type(network).__name__}")
    _materialise(network, name, image)
    _refuse_overlap(network, name)
    _try(network, name, classes, image, training=False)
    if trains:
        _try(network, name, classes, image, training=True, auxiliary=auxiliary)
    return network


def torchvision_classifiers() -> list[str]:
    """torchvision's classifiers only: its other models download weights of backbones, or are quantised."""
    from torchvision import models

    return list(models.list_models(module=models))


def torchvision_classifier(name: str, classes: int) -> nn.Module:
    """One of them, with fresh weights."""
    from torchvision import models

    # Theirs of these two takes half a minute, and warns that it will be what it is without.
    initialisation = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **initialisation)
    return network


def _torchvision(name: str, classes: int, image: Image) -> Callable[[], Any]:
    _require(name, torchvision_classifiers(), "torchvision")
    if image[0] != 3:
        raise ValueError(f"torchvision's networks take images of 3 channels, not {image}: write a function of your own")
    return partial(torchvision_classifier, name, classes)


def _timm(name: str, classes: int, image: Image) -> Callable[[], Any]:
    try:
        import timm
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"network 'timm:{name}' needs timm: pip install timm") from None
    _require(name, timm.list_models(), "timm")
    return partial(timm.create_model, name, pretrained=False, num_classes=classes, in_chans=image[0])


def _require(name: str, known: Iterable[str], library: str) -> None:
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        raise ValueError(f"{library} has no classifier {name!r}; did you mean {near!r}?")


def _own(module_name: str, name: str, classes: int, image: Image) -> Callable[[], Any]:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"network '{module_name}:{name}': {_line(error)}; install it, or go to the folder it lies in "
            "(PYTHONPATH adds others)"
        ) from None
    except (Exception, SystemExit) as error:  # a script that parses its arguments ends so
        raise ValueError(f"network '{module_name}:{name}': importing {module_name} failed, {error!r}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"module {module_name!r} ({_file(module)}) has no function {name!r} to build a network")
    return partial(function, classes, image)


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "of Python's own"


def _materialise(network: nn.Module, name: str, image: Image) -> None:
    """Initialise lazy layers by a forward pass."""
    import torch
    from torch.nn.parameter import is_lazy

    from lra.state import in_mode

    if any(map(is_lazy, [*network.parameters(), *network.buffers()])):
        try:
            with torch.no_grad(), in_mode(network, training=False):
                network(torch.zeros(2, *image))
        except Exception as error:
            raise ValueError(f"network {name!r} does not take images {image}: {_line(error)}") from error


def _refuse_overlap(network: nn.Module, name: str) -> None:
    """Raise ``ValueError`` for two parameters that share memory, since updating one would change the other."""
    owners: list[tuple[int, int, str]] = []
    for own, parameter in network.named_parameters():
        start = parameter.data_ptr()
        end = start + parameter.numel() * parameter.element_size()
        if (other := next((n for low, high, n in owners if start < high and low < end), None)) is not None:
            raise ValueError(
                f"network {name!r}: its parameters {other!r} and {own!r} share memory and are two: make them one "
                "parameter, or use one through the other in forward"
            )
        owners.append((start, end, own))


def _try(network: nn.Module, name: str, classes: int, image: Image, training: bool, auxiliary: bool = False) -> None:
    import torch
    from torch import Tensor

    from lra.state import untouched

    mode = "training" if training else "evaluation"
    try:
        with torch.no_grad(), untouched(network):
            answers = network.train(training)(torch.zeros(2, *image))
    except Exception as error:
        raise ValueError(f"network {name!r} does not take images {image} in {mode} mode: {_line(error)}") from error
    parts = answers if auxiliary and isinstance(answers, tuple) and answers else (answers,)
    for logits in parts:
        if not isinstance(logits, Tensor) or logits.shape != (2, classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"network {name!r} gives {found} for two images in {mode} mode, not logits (2, {classes})")


def _line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__
