"""What is not the same in two runs: every attribute of every object in them, whether or not it has been used yet."""

from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lra.memory.buffers import Buffer, ImagePool
from lra.strategies.divergence import DivergenceGuard
from lra.synthesis.sources import LatentSource
from lra.synthesis.terms import FeatureBank

UNREAD = ("_last", "_before", "_answers", "last_metric_results", "_handles", "_forward_hooks")
"""What is left of the last evaluation, and not read before the next has set it anew; and hooks, which have numbers."""
WITHOUT_STATE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, torch.dtype, torch.device)
"""Nor has the guard, which looks at networks that are found elsewhere."""


def differences(one: Any, other: Any, path: str, seen: set[int]) -> Iterator[str]:
    """Paths to all that is not the same in two object graphs."""
    if type(one).__qualname__ != type(other).__qualname__:  # torch makes a class for every parametrised module
        yield f"{path}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, Tensor):
        if not torch.equal(torch.nan_to_num(one.detach().cpu()), torch.nan_to_num(other.detach().cpu())):
            yield path
    elif isinstance(one, np.ndarray):
        if not np.array_equal(one, other):
            yield path
    elif one is None or isinstance(one, bool | int | float | str | bytes):
        if repr(one) != repr(other):
            yield f"{path}: {one!r:.40} and {other!r:.40}"
    elif id(one) not in seen and not isinstance(one, (*WITHOUT_STATE, DivergenceGuard)):
        seen.add(id(one))
        ones, others = parts_of(one), parts_of(other)
        if ones.keys() != others.keys():
            yield f"{path}: parts {sorted(ones.keys() ^ others.keys())}"
        for name in ones.keys() & others.keys():
            yield from differences(ones[name], others[name], f"{path}.{name}", seen)


def parts_of(thing: Any) -> dict[str, Any]:
    """What a container or an object consists of, by name or place."""
    if isinstance(thing, Mapping):
        named = all(isinstance(key, str | int) for key in thing)
        return {str(key) if named else str(i): value for i, (key, value) in enumerate(thing.items())}
    if isinstance(thing, list | tuple):
        return {str(i): value for i, value in enumerate(thing)}
    own = {name: value for name, value in getattr(thing, "__dict__", {}).items() if name not in UNREAD}
    if type(thing) is LatentSource:
        del own["generator"]  # it is drawn anew with every batch, but for running statistics that nothing reads
    if isinstance(thing, Buffer | ImagePool | FeatureBank):  # the rest of their memory has never been written
        return {name: held(value, len(thing)) for name, value in own.items()}
    return own


def held(value: Any, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[:count]
    return [held(part, count) for part in value] if isinstance(value, tuple) else value
