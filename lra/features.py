"""Features and statistics of any network, taken with forward hooks that exist only inside a ``with`` block.

Networks need not be prepared for this, so that torchvision's, timm's and a user's own all work.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from lra.anatomy import Side, batchnorm_layers, penultimate
from lra.problem import single
from lra.state import untouched


class Tap:
    """Records the inputs or outputs of chosen modules, with their graph, inside a ``with`` block.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 5))
    >>> with Tap(network, [network[2]]) as tap:
    ...     logits = network(torch.zeros(4, 3))
    >>> tap.values[0].shape
    torch.Size([4, 2])

    Each forward pass replaces the values of the one before; the last ones can still be read after the block.
    """

    def __init__(self, model: nn.Module, modules: Sequence[nn.Module], what: Side = "input") -> None:
        """Choose ``modules`` of ``model``, and whether to record their first input or their output.

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
        """The values of the last forward pass, in the order in which the modules were given.

        For a module that is called more than once in a pass, the last call is recorded.

        Raises:
            RuntimeError: if one of the modules has not been called.
        """
        missing = [name for index, name in enumerate(self._names) if index not in self._values]
        if missing:
            raise RuntimeError(f"no forward went through {missing[0] or 'the model'!r} while it was tapped")
        return [self._values[index] for index in range(len(self._modules))]

    def of(self, copy: nn.Module) -> Self:
        """Use the modules with the same names in a ``copy`` of the model; call this before entering the block."""
        self._modules = [copy.get_submodule(name) for name in self._names]
        return self

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
                raise TypeError(f"the {self._what} of {self._names[index]!r} is not a tensor but {type(value)}")
            self._values[index] = value

        return keep


class FeatureTap(Tap):
    """Records a network's penultimate features, see `lra.anatomy.penultimate`, inside a ``with`` block."""

    def __init__(self, model: nn.Module, image: Sequence[int]) -> None:
        """Record the features of ``model``, which takes images (C, H, W) of this shape.

        Raises:
            HeadNotFound: if they cannot be located.
        """
        module, side = penultimate(model, image)
        super().__init__(model, [module], side)
        self._by_token = isinstance(module, nn.Linear) and side == "input"

    @property
    def features(self) -> Tensor:
        """(n, d) of the last pass, with graph: maps (n, d, h, w) averaged over pixels, tokens over positions."""
        (value,) = self.values
        return value.flatten(1, -2).mean(1) if self._by_token and value.dim() > 2 else pooled(value)


@torch.no_grad()
def feature_size(network: nn.Module, image: Sequence[int]) -> int:
    """The d of a network's penultimate features (n, d), found with black images (C, H, W)."""
    blank = next(network.parameters()).new_zeros(2, *image)
    with untouched(network), FeatureTap(network, image) as tap:
        network.eval()(blank)
    return tap.features.shape[1]


def pooled(features: Tensor) -> Tensor:
    """Average maps (n,d,h,w) over their pixels to (n,d); leave features (n,d) alone."""
    return features if features.dim() == 2 else features.mean(tuple(range(2, features.dim())))


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (c,) of each channel of ``values`` (n,c,…).

    The same as ``torch.var_mean`` over all other axes, which takes many times as long for channels-last maps, forward
    and backward.
    """
    mean, variance = _Moments.apply(values)
    return mean, variance


class _Moments(torch.autograd.Function):
    """In forward what batch norm does with its input; in backward one pass, which can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> tuple[Tensor, Tensor]:
        if values.device.type == "cpu":
            mean, variance = torch.batch_norm_update_stats(values, None, None, 0.0)
        else:
            axes = [axis for axis in range(values.dim()) if axis != 1]
            mean = values.mean(axes)
            apart = values - mean.view(-1, *[1] * (values.dim() - 2))
            variance = apart.mul_(apart).mean(axes)
        ctx.save_for_backward(values, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        values, mean = ctx.saved_tensors
        each = values.shape[1] / values.numel()
        slope = 2 * each * gradients[1]
        return _affine(values, slope, each * gradients[0] - slope * mean)


def _affine(values: Tensor, slope: Tensor, constant: Tensor) -> Tensor:
    """Values (n,c,…) times ``slope`` (c,) plus ``constant`` (c,), by a kernel that knows where channels lie."""
    zeros, ones = torch.zeros_like(slope), torch.ones_like(slope)
    return F.batch_norm(values, zeros, ones, slope, constant, eps=0.0)


class LayerStatistics(NamedTuple):
    """Batch statistics of a BatchNorm layer's input, and its running statistics of real data: each (channels,)."""

    mean: Tensor
    """Mean of the layer's input over batch and pixels, with its graph."""
    variance: Tensor
    """Variance of the layer's input over batch and pixels, with its graph; biased (divided by the count)."""
    running_mean: Tensor
    running_variance: Tensor


class BatchNormStatistics(Tap):
    """Records batch statistics of every BatchNorm layer's input, beside the running ones, inside a ``with`` block.

    Data-free methods compare the two to make synthetic data look like the training data (DeepInversion, Yin et al.,
    CVPR 2020). Works in training and evaluation mode, and does not change the running statistics.
    """

    def __init__(self, model: nn.Module, image: Sequence[int]) -> None:
        """Record `lra.anatomy.batchnorm_layers` of ``model``, which takes images (C, H, W) of this shape.

        Raises:
            ValueError: if there are none.
        """
        modules = batchnorm_layers(model, image)
        if not modules:
            raise ValueError("needs a teacher with BatchNorm; set the weight of its statistics to 0 for this one")
        super().__init__(model, modules, "input")
        self._batchnorms = modules

    @property
    def layers(self) -> list[LayerStatistics]:
        """The statistics of the last forward pass, for each layer that was called, in order of registration."""
        found = []
        for index, module in enumerate(self._batchnorms):
            if index not in self._values or module.running_mean is None or module.running_var is None:
                continue
            mean, variance = moments(single(self._values[index]))
            found.append(LayerStatistics(mean, variance, module.running_mean, module.running_var))
        return found
