"""The anatomy of a network, found by one forward pass: what makes its logits, which BatchNorm layers run, its stages.

The names and order of a network's modules do not show what is used: heads may be unused, or run and be dropped, and
branches may be for training only. So one black image is passed through in evaluation mode, without side effects, and
modules are identified by what they did to it. This works for any architecture.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lra.networks.normalized import Normalized
from lra.state import in_mode, untouched

Side = Literal["input", "output"]

PRODUCTS = {
    *("Addmm", "Mm", "Addbmm", "Baddbmm", "Bmm", "Addmv", "Mv", "Dot", "Linear", "Bilinear", "Trilinear"),
    *("Convolution", "ConvolutionOverrideable", "Cdist", "EuclideanDist"),
}
"""Autograd's names of the operations that can form a classifier: products with weights, distances to prototypes."""


class HeadNotFound(ValueError):
    """A forward pass of the network does not show which layer makes its logits."""


class FeaturePoint(NamedTuple):
    """Where a network's penultimate features can be taken."""

    module: nn.Module
    side: Side


@dataclass(frozen=True)
class Anatomy:
    """What a forward pass showed, by module name, so that it stays valid when a module is replaced.

    Attributes:
        classifier: the module that makes the logits; empty for the network itself.
        missing: why there is none, if there is none.
        called: the modules that ran.
    """

    classifier: str | None
    missing: str
    called: frozenset[str]


_KNOWN: "WeakKeyDictionary[nn.Module, Anatomy]" = WeakKeyDictionary()
_STAGES: "WeakKeyDictionary[nn.Module, list[nn.Module]]" = WeakKeyDictionary()
"""Results for networks that have been examined."""


def classifier(model: nn.Module, image: Sequence[int]) -> nn.Module:
    """The layer that makes the logits: the innermost module that contains the last product with weights before them.

    Usually a linear layer, or a convolution followed by pooling (SqueezeNet). What comes after it (temperature,
    dropout, masks, a reshape) and heads whose output is dropped make no difference.

    Args:
        model: images -> logits (n, K).
        image: (C, H, W).

    Raises:
        HeadNotFound: if no module makes the logits (but a bare parameter does), or several modules do.
    """
    found = _anatomy(model, image)
    if found.classifier is None:
        raise HeadNotFound(
            f"the features of {type(_body(model)).__name__} cannot be found: {found.missing}; name the module that "
            "puts them out: give --set teacher.features=body (or student.features)"
        )
    return model.get_submodule(found.classifier)


def penultimate(model: nn.Module, image: Sequence[int]) -> FeaturePoint:
    """Where the penultimate features are: as the network states (`Normalized.features`), or its classifier's input.

    Args:
        model: images -> logits (n, K).
        image: (C, H, W).

    Raises:
        HeadNotFound: as `classifier`.
    """
    for part in model.modules():
        if isinstance(part, Normalized) and part.features is not None:
            side, _, name = part.features.rpartition(":")
            return FeaturePoint(part.network.get_submodule(name), "input" if side == "input" else "output")
    return FeaturePoint(classifier(model, image), "input")


def batchnorm_layers(model: nn.Module, image: Sequence[int]) -> list[_BatchNorm]:
    """The BatchNorm layers with running statistics that run in evaluation mode, in order of registration.

    Args:
        model: takes images (C, H, W) of this shape.
    """
    called = _anatomy(model, image).called
    layers = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    return [layer for name, layer in layers.items() if name in called]


class BatchNormNode(NamedTuple):
    """A BatchNorm layer, and the size of its input maps."""

    place: int
    """Its index among `batchnorm_layers`."""
    map: tuple[int, int, int]
    """Channels, height and width."""


def batchnorm_nodes(model: nn.Module, image: Sequence[int], named: Sequence[str] | None = None) -> list[BatchNormNode]:
    """BatchNorm layers of feature maps, the deepest first.

    Args:
        model: takes images (C, H, W) of this shape.
        image: C, H, W.
        named: which layers, by their names in the network; by default the last one at every resolution of more than a
            pixel, at most the four deepest of these.

    Raises:
        ValueError: for a name that is not such a layer, or if there is no such layer.
    """
    layers, seen = list[nn.Module](batchnorm_layers(model, image)), dict[str, BatchNormNode]()
    names = {module: name for name, module in model.named_modules()}

    def see(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs[0].dim() == 4:
            seen[names[module]] = BatchNormNode(layers.index(module), tuple(inputs[0].shape[1:]))

    with torch.no_grad(), _seeing(iter(layers), see), in_mode(model, training=False):
        model(_blank(model, image))
    if named is None:
        last = {node.map[1:]: node for node in seen.values() if node.map[1] * node.map[2] > 1}
        found = sorted(last.values(), key=lambda node: node.map[1] * node.map[2])[:4]
    else:
        # A network that normalises by itself has its body's layers under the name of the body.
        found = [seen[key] for name in named for key in seen if name in (key, key.removeprefix("network."))]
        if lacking := [name for name in named if not {name, f"network.{name}"} & seen.keys()]:
            raise ValueError(f"the teacher has no BatchNorm of maps called {lacking[0]!r}; it has {', '.join(seen)}")
    if not found:
        raise ValueError("the teacher has no BatchNorm of maps of more than a pixel")
    return found


def _anatomy(model: nn.Module, image: Sequence[int]) -> Anatomy:
    """The anatomy of a network, which is examined once."""
    if model not in _KNOWN:
        _KNOWN[model] = _looked_into(model, image)
    return _KNOWN[model]


class _Call(NamedTuple):
    name: str
    module: nn.Module
    is_flat: bool
    """Whether its first input is a vector for each image."""
    sources: set[Node]
    """Where its inputs come from."""
    made: Node | None
    """What its output, if that is one tensor, comes from."""


def _looked_into(model: nn.Module, image: Sequence[int]) -> Anatomy:
    names = {module: name for name, module in model.named_modules()}
    calls: list[_Call] = []

    def see(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = [x for x in inputs if isinstance(x, Tensor)]
        is_flat = bool(given) and given[0].dim() == 2
        sources = {x.grad_fn for x in given if x.grad_fn is not None}
        made = output.grad_fn if isinstance(output, Tensor) else None
        calls.append(_Call(names[module], module, is_flat, sources, made))

    # Of one image alone some networks squeeze the batch away.
    images = _blank(model, image).repeat(2, *[1] * len(image)).requires_grad_()
    with untouched(model), _seeing(model.modules(), see), torch.enable_grad(), _thawed(model):
        logits = model.eval()(images)
        called = frozenset(call.name for call in calls)
        try:
            return Anatomy(_head(logits, calls), "", called)
        except HeadNotFound as error:
            return Anatomy(None, str(error), called)


def _head(logits: Any, calls: Sequence[_Call]) -> str:
    """The name of the module that made ``logits``."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise HeadNotFound(f"it gives {shape} for two images, not logits")
    passed: set[Node] = set()
    last = [] if logits.grad_fn is None else _products([logits.grad_fn], set(), passed)
    # A product that another one works on is no last one: f in fc(f) / |f|.
    last = [node for node in last if not any(node in _behind(other) for other in last if other is not node)]
    if not last:
        raise HeadNotFound("no product with weights that can be differentiated leads to its logits")
    if len(last) > 1:
        raise HeadNotFound(f"{len(last)} layers make its logits together")
    for call in calls:
        if call.made not in passed or call.made in call.sources:
            continue
        inside = _products([call.made], call.sources, set())
        if inside == last and (_is_linear(call.module) or (call.is_flat and not _deeper(call, inside))):
            if [other for other in calls if other.module is call.module][-1] is not call:
                raise HeadNotFound(f"{call.name!r} makes its logits, and runs once more after that")
            return call.name
    raise HeadNotFound("its logits are made by a parameter of its own and by no layer")


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | _ConvNd)


def _deeper(call: _Call, products: Sequence[Node]) -> bool:
    """Whether a call made other products before its last ones."""
    return any(
        _products([following for following, _ in node.next_functions if following], call.sources, set())
        for node in products
    )


def _products(start: Sequence[Node], end: set[Node], passed: set[Node]) -> list[Node]:
    """The first products on the paths from ``start`` back to ``end``; what the paths pass is added to ``passed``."""
    pending, found = list(start), []
    while pending:
        node = pending.pop()
        if node in passed or node in end:
            continue
        passed.add(node)
        if node.name().split("Backward")[0] in PRODUCTS:
            found.append(node)
        else:
            pending += [following for following, _ in node.next_functions if following is not None]
    return found


def _behind(node: Node) -> set[Node]:
    """All that ``node`` was made from."""
    pending, seen = [node], set[Node]()
    while pending:
        for following, _ in pending.pop().next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)
    return seen


@contextmanager
def _thawed(model: nn.Module) -> Iterator[None]:
    """Let every weight appear in the graph, also behind a part that requires no gradient."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _body(model: nn.Module) -> nn.Module:
    """The network inside its normalisation."""
    return next((part.network for part in model.modules() if isinstance(part, Normalized)), model)


def _blank(model: nn.Module, image: Sequence[int]) -> Tensor:
    return next(model.parameters(), torch.zeros(())).new_zeros(1, *image)


@contextmanager
def _seeing(modules: Iterator[nn.Module], see: Callable[[nn.Module, tuple[Any, ...], Any], None]) -> Iterator[None]:
    """Call ``see`` after every call of one of ``modules``, with module, inputs and output."""
    handles = [module.register_forward_hook(see) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def stages(model: nn.Module, image: Sequence[int]) -> list[nn.Module]:
    """Return, for each spatial resolution a model works at, the module whose output is the last map there.

    Found by passing one black image through the model in evaluation mode, so that any architecture works: of all
    modules that run at a resolution, the stage is the last of the outermost ones, a block rather than a bare layer. A
    ResNet has its three or four stages (a WRN's end before the final BatchNorm), a plain network like VGG the last
    layer before each pooling. Maps of one pixel are features, not stages. Tap them with ``what="output"``. A teacher
    that counts its queries counts this one.

    Raises:
        ValueError: if the model makes no feature maps of images of this shape (C,H,W).
    """
    if model not in _STAGES:
        _STAGES[model] = _found_stages(model, image)
    return _STAGES[model]


@torch.no_grad()
def _found_stages(model: nn.Module, image: Sequence[int]) -> list[nn.Module]:
    names = {id(module): name for name, module in model.named_modules()}
    seen: list[tuple[nn.Module, torch.Size]] = []

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            seen.append((module, output.shape[2:]))

    # What works on a layer's weight (rounds it, say) makes no maps.
    inside = {part for layer in model.modules() if _is_layer(layer) for part in layer.modules() if part is not layer}
    seen_by = (module for module in model.modules() if module not in inside)
    with _seeing(seen_by, see), in_mode(model, training=False):
        model(_blank(model, image))
    calls = Counter(id(module) for module, _ in seen)
    resolutions: dict[torch.Size, list[nn.Module]] = {}
    for module, size in seen:
        # A module that is called again elsewhere (a shared ReLU) would be tapped there.
        if calls[id(module)] == 1:
            resolutions.setdefault(size, []).append(module)
    if not resolutions:
        raise ValueError(f"{type(model).__name__} makes no feature maps of images {tuple(image)}")
    return [_outermost(modules, names) for modules in resolutions.values()]


def _outermost(modules: list[nn.Module], names: dict[int, str]) -> nn.Module:
    """Return the last of the least deeply nested modules, of blocks before bare layers."""
    depth = min(names[id(module)].count(".") for module in modules)
    outer = [module for module in modules if names[id(module)].count(".") == depth]
    blocks = [module for module in outer if next(module.children(), None) is not None and not _is_layer(module)]
    return (blocks or outer)[-1]


def _is_layer(module: nn.Module) -> bool:
    return "weight" in dict(module.named_parameters(recurse=False))
