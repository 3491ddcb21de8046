"""A graphics card that is only pretended, to see where a program would wait for one, or mix it up with the host.

Tensors "on the card" say that their device is ``cuda:0`` and are held by the processor, which computes them; what real
kernels would have to wait for is counted, by the line of ours that asked for it.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from lra.meta import checks
from lra.meta.closed_form import batchnorm, rules

CARD = torch.device("meta")
aten = torch.ops.aten
SIZED_BY_VALUES = {
    *(aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.unique_dim.default),
    *(aten.unique_consecutive.default, aten.bincount.default, aten.repeat_interleave.Tensor),
}
"""What has to be computed before the host knows how much of it there is."""
ANSWERED = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default, aten.item.default}
"""What gives the host a number."""
SENT = "sent ahead"
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor}


class OnCard(Tensor):
    """A tensor on the card: ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnCard":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=CARD, requires_grad=held.requires_grad
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {}, lambda why: None)


class Card(TorchDispatchMode):
    """While it is open, `CARD` is there; counts by line what the host waits for, and what it sends without waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.watching = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {}, self.waited)

    def waited(self, why: str) -> None:
        if self.watching:
            (self.sent if why == SENT else self.waits)[f"{_line()}: {why}"] += 1


def computed(func: Any, args: Any, kwargs: dict[str, Any], waited: Callable[[str], None]) -> Any:
    """An operation, done by the processor as the card would do it; ``waited`` is told where the host would wait."""
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    there = [each for each in tensors if isinstance(each, OnCard)]
    name = str(func)
    wanted = kwargs.get("device")
    wanted = None if wanted is None else torch.device(wanted)
    if func is aten._to_copy.default:
        on_card = bool(there) if wanted is None else wanted == CARD
        if on_card and not there:
            waited(SENT if kwargs.get("non_blocking") else "copies from the host")
        if there and not on_card:
            waited("copies to the host")
    elif func is aten.copy_.default:
        on_card = isinstance(args[0], OnCard)
        if len(there) == 1 and not (on_card and args[1].dim() == 0):
            waited("copies from the host" if on_card else "copies to the host")
    else:
        on_card = bool(there) or (wanted is not None and wanted == CARD)
        if there:
            _refuse_mixed(func, name, args, tensors, waited)
        if there and (func in ANSWERED or func in SIZED_BY_VALUES):
            waited(name)
    if wanted is not None and wanted == CARD:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    own_args, own_kwargs = tree_map_only(OnCard, lambda each: each.held, (args, kwargs))
    if func is aten._to_copy.default:
        own_kwargs.pop("non_blocking", None)
    found = func(*own_args, **own_kwargs)
    written = [i for i, a in enumerate(func._schema.arguments) if a.alias_info is not None and a.alias_info.is_write]
    if written and func._schema.returns and func._schema.returns[0].alias_info is not None:
        return args[written[0]] if written[0] < len(args) else kwargs["out"]
    return (
        tree_map_only(Tensor, lambda each: OnCard(each) if type(each) is Tensor else each, found) if on_card else found
    )


class _Numbers(TorchFunctionMode):
    """Lists of numbers go to the card, and come from it, by way of the host, as they do in truth."""

    def __init__(self, card: Card):
        super().__init__()
        self.card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and torch.device(options.get("device") or "cpu") == CARD:
            return func(*args, **(options | {"device": "cpu"})).to(CARD)
        if func is torch.Tensor.tolist and isinstance(args[0], OnCard):
            self.card.waited("a list")
            return args[0].held.tolist()
        return func(*args, **options)


def _refuse_mixed(func: Any, name: str, args: Any, tensors: list[Tensor], waited: Callable[[str], None]) -> None:
    if func in INDEXING:
        for index in args[1]:
            if index is None:
                continue
            if not isinstance(index, OnCard):
                waited("an index that lies on the host")
            elif index.dtype in (torch.bool, torch.uint8):
                waited("a mask for an index")
        if not isinstance(args[0], OnCard):
            raise RuntimeError(f"{name}: an index on the card of a tensor on the host")
        return
    strangers = [each for each in tensors if not isinstance(each, OnCard) and each.dim() > 0]
    if strangers:
        raise RuntimeError(f"{name}: expected all tensors on {CARD}, found {tuple(strangers[0].shape)} on the host")


def _line() -> str:
    """The innermost lines of ours that are being executed."""
    root = Path(__file__).parents[1]
    ours = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(root) and f.filename != __file__]
    ours = [f for f in ours if ".venv" not in f.filename]
    return f"{Path(ours[-1].filename).relative_to(root)}:{ours[-1].lineno} {ours[-1].line}" if ours else "elsewhere"


def _unfused(made: Callable[..., None]) -> Callable[..., None]:
    return lambda self, *args, **options: made(self, *args, **(options | {"fused": None}))


@contextmanager
def pretended(patch: pytest.MonkeyPatch) -> Iterator[Card]:
    """Have a pretended card, as ``cuda``."""

    autocast, plain = torch.is_autocast_enabled, checks.plain

    def handled(*tensors: Tensor | None, **rest: Any) -> bool:
        held = [each.held if isinstance(each, OnCard) else each for each in tensors]
        return plain(*held, **rest) or any(each.requires_grad for each in tensors if each is not None)

    patch.setattr(torch, "is_autocast_enabled", lambda kind=None: kind != CARD.type and autocast(kind or "cuda"))
    for module in (rules, batchnorm):
        patch.setattr(module, "plain", handled)
    # Fused kernels are for real devices; those that stand in for them make the same steps.
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        patch.setattr(kind, "__init__", _unfused(kind.__init__))
    # A parameter that is sent to the card is another one: the place of its values is part of the tensor here.
    patch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    with Card() as card, _Numbers(card):
        yield card
