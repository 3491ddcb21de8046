"""Features and statistics of any network, taken with forward hooks that exist only inside a ``with`` block.

No network needs to know that it is watched, so torchvision's, timm's and a user's own work alike.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Side = Literal["input", "output"]


class Tap:
    """Keeps what chosen modules take in or give out, with its graph, while the ``with`` block lasts.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 5))
    >>> with Tap(network, [penultimate(network)], what="input") as tap:
    ...     logits = network(torch.zeros(4, 3))
    >>> tap.values[0].shape
    torch.Size([4, 2])

    Each forward replaces the values of the one before; the last ones stay readable after the block.
    """

    def __init__(self, model: nn.Module, modules: Sequence[nn.Module], what: Side = "output") -> None:
        """Choose ``modules`` of ``model`` and the side of them to watch.

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
        for index, name in enumerate(self._names):
            if index not in self._values:
                raise RuntimeError(f"no forward went through {name or 'the model'!r} while it was tapped")
        return [self._values[index] for index in range(len(self._modules))]

    def __enter__(self) -> Self:
        if self._handles:
            raise RuntimeError("this tap is already open")
        self._values.clear()
        for index, module in enumerate(self._modules):
            self._handles.append(module.register_forward_hook(self._hook(index)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, index: int) -> Any:
        def keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            value = inputs[0] if self._what == "input" else output
            if not isinstance(value, Tensor):
                name = self._names[index] or "the model"
                raise TypeError(f"{name!r} has no tensor as its {self._what} but a {type(value).__name__}")
            self._values[index] = value

        return keep


def penultimate(model: nn.Module) -> nn.Module:
    """Return the classifier, the module whose *input* is the penultimate features.

    This is the last `nn.Linear`, and its input (n,d); in a network without any, the last 1x1 convolution
    (SqueezeNet), and its input (n,d,h,w), of which ``pooled`` makes (n,d).

    Raises:
        ValueError: if the model has neither.
    """
    modules = list(model.modules())
    linear = [module for module in modules if isinstance(module, nn.Linear)]
    pointwise = [
        module for module in modules if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    ]
    candidates: Sequence[nn.Module] = linear or pointwise
    if not candidates:
        raise ValueError(
            f"{type(model).__name__} has no Linear layer and no 1x1 convolution whose input would be "
            "its features; methods that need features cannot use it"
        )
    return candidates[-1]


def pooled(features: Tensor) -> Tensor:
    """Average feature maps (n,d,h,w) over their pixels to (n,d); leave features (n,d) alone."""
    return features if features.dim() == 2 else features.flatten(2).mean(2)
