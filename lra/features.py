"""Features and statistics of any network, taken with forward hooks that exist only inside a ``with`` block.

No network needs to know that it is watched, so torchvision's, timm's and a user's own work alike.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from lra.preservation import in_mode

Side = Literal["input", "output"]


class Tap:
    """Keeps what chosen modules take in or give out, with its graph, while the ``with`` block lasts.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 5))
    >>> with Tap(network, [penultimate(network)]) as tap:
    ...     logits = network(torch.zeros(4, 3))
    >>> tap.values[0].shape
    torch.Size([4, 2])

    Each forward replaces the values of the one before; the last ones stay readable after the block.
    """

    def __init__(self, model: nn.Module, modules: Sequence[nn.Module], what: Side = "input") -> None:
        """Choose ``modules`` of ``model`` and the side of them to watch: their first input, or their output.

        Raises:
            ValueError: if a module is not part of the model, or ``what`` is neither input nor output.
        """
        if what not in ("input", "output"):
            raise ValueError(f"a tap takes the 'input' or the 'output' of modules, not {what!r}")
        names = {id(module): name for name, module in model.named_modules()}
        for module in modules:
            if id(module) not in names:
                raise ValueError(f"{type(module).__name__} is not a module of {type(model).__name__}")
        self._names = [names[id(module)] for module in modules]
        self._modules = list(modules)
        self._what = what
        self._values: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    @property
    def values(self) -> list[Tensor]:
        """What the last forward sent through each module, in the order in which the modules were given.

        A module that is called more than once in a forward keeps its last call.

        Raises:
            RuntimeError: if one of the modules has not been called.
        """
        missing = [name for index, name in enumerate(self._names) if index not in self._values]
        if missing:
            raise RuntimeError(f"no forward went through {missing[0] or 'the model'!r} while it was tapped")
        return [self._values[index] for index in range(len(self._modules))]

    def __enter__(self) -> Self:
        if self._handles:
            raise RuntimeError("this tap is already open")
        self._values.clear()
        for index, module in enumerate(self._modules):
            self._handles.append(module.register_forward_hook(self._hook(index)))
        return self

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, index: int) -> Any:
        def keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            value = next(iter(inputs), None) if self._what == "input" else output
            if not isinstance(value, Tensor):
                raise TypeError(f"the {self._what} of {self._names[index]!r} is no tensor but {type(value)}")
            self._values[index] = value

        return keep


def penultimate(model: nn.Module) -> nn.Module:
    """Return the classifier, the module whose *input* is the penultimate features.

    This is the last `nn.Linear`, and its input (n,d); in a network without any, the last 1x1 convolution
    (SqueezeNet), and its input (n,d,h,w), of which `pooled` makes (n,d).

    Raises:
        ValueError: if the model has neither.
    """
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    pointwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    candidates: Sequence[nn.Module] = linear or pointwise
    if not candidates:
        raise ValueError(f"{type(model).__name__} has no Linear layer or 1x1 convolution to take features from")
    return candidates[-1]


def pooled(features: Tensor) -> Tensor:
    """Average maps (n,d,h,w) over their pixels to (n,d); leave features (n,d) alone."""
    return features if features.dim() == 2 else features.flatten(2).mean(2)


class LayerStatistics(NamedTuple):
    """What one BatchNorm layer saw and what it remembers of real data: each (channels,)."""

    mean: Tensor
    """Of the layer's input over batch and pixels, with its graph."""
    variance: Tensor
    """Likewise, biased (divided by the count)."""
    running_mean: Tensor
    running_variance: Tensor


def batchnorm_layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers with running statistics, in order of registration."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


class BatchNormStatistics(Tap):
    """Batch statistics of every BatchNorm layer's input, beside the running ones, inside a ``with`` block.

    What data-free methods compare to make synthetic data look like the training data (DeepInversion, Yin et
    al., CVPR 2020). Works in train and evaluation mode, and leaves the running statistics alone.
    """

    def __init__(self, model: nn.Module) -> None:
        """Watch `batchnorm_layers` of ``model``; raise ``ValueError`` if there are none."""
        modules = batchnorm_layers(model)
        if not modules:
            raise ValueError("needs a teacher with BatchNorm; set the weight of its statistics to 0 for this one")
        super().__init__(model, modules, "input")
        self._batchnorms = modules

    @property
    def layers(self) -> list[LayerStatistics]:
        """The statistics of the last forward, for each layer that was called, in order of registration."""
        found = []
        for index, module in enumerate(self._batchnorms):
            if index not in self._values or module.running_mean is None or module.running_var is None:
                continue
            value = self._values[index]
            axes = [axis for axis in range(value.dim()) if axis != 1]
            variance, mean = torch.var_mean(value, axes, correction=0)
            found.append(LayerStatistics(mean, variance, module.running_mean, module.running_var))
        return found


@torch.no_grad()
def stages(model: nn.Module, image: tuple[int, int, int]) -> list[nn.Module]:
    """Return, for each spatial resolution a model works at, the module whose output is the last map there.

    Found by sending one black image through the model in evaluation mode, so any architecture will do: of all
    that runs at a resolution it is the last of the outermost modules, a block rather than a bare layer. A
    ResNet gives its three or four stages (a WRN's before the final BatchNorm), a plain network like VGG the
    last layer before each pooling. Maps of one pixel are features, not stages. To be tapped with
    ``what="output"``. A teacher that counts its queries counts this one.

    Raises:
        ValueError: if the model makes no maps of images of this shape (C,H,W).
    """
    names = {id(module): name for name, module in model.named_modules()}
    seen: list[tuple[nn.Module, torch.Size]] = []

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            seen.append((module, output.shape[2:]))

    # What works on a layer's weight (rounds it, say) makes no maps.
    inside = {part for layer in model.modules() if _is_layer(layer) for part in layer.modules() if part is not layer}
    handles = [module.register_forward_hook(see) for module in model.modules() if module not in inside]
    try:
        with in_mode(model, training=False):
            model(next(model.parameters(), torch.zeros(())).new_zeros(1, *image))
    finally:
        for handle in handles:
            handle.remove()
    calls = Counter(id(module) for module, _ in seen)
    resolutions: dict[torch.Size, list[nn.Module]] = {}
    for module, size in seen:
        # A module that is called again elsewhere (a shared ReLU) would be tapped there.
        if calls[id(module)] == 1:
            resolutions.setdefault(size, []).append(module)
    if not resolutions:
        raise ValueError(f"{type(model).__name__} makes no feature maps of images {image}")
    return [_outermost(modules, names) for modules in resolutions.values()]


def _outermost(modules: list[nn.Module], names: dict[int, str]) -> nn.Module:
    """Return the last of the least deeply nested modules, of blocks before bare layers."""
    depth = min(names[id(module)].count(".") for module in modules)
    outer = [module for module in modules if names[id(module)].count(".") == depth]
    blocks = [module for module in outer if next(module.children(), None) is not None and not _is_layer(module)]
    return (blocks or outer)[-1]


def _is_layer(module: nn.Module) -> bool:
    return "weight" in dict(module.named_parameters(recurse=False))
