"""Weights as found in public checkpoints: unwrapped, and renamed where that is certain."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("ema", "ema_state_dict", "model_ema", "ema_model", "state_dict_ema", "params_ema", "averaged_model"),
)
"""Keys under which training scripts store the weights, or their average over training, among other things."""

COUNTERS = ("n_averaged", "initted", "step", "num_updates", "decay")
"""Counters of averages, which are not weights."""

SPELLINGS = (("linear.", "fc."), ("fc.", "linear."), (".shortcut.", ".downsample."), ("block", "layer"))
"""Names of the same parts in other code: the classifier, the ResNets' shortcut, the wide ResNets' stages."""


def unwrapped(loaded: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict inside the content of a checkpoint file, with its names unchanged.

    Raises:
        ValueError: if there is none, or more than one.
    """
    # A file from elsewhere may hold a mapping that holds itself.
    passed: set[int] = set()
    while id(loaded) not in passed and (inner := _inner(loaded)):
        passed.add(id(loaded))
        if len({id(content) for content in inner.values()}) > 1:
            raise ValueError(
                f"there is more than one set of weights in the checkpoint, in {' and '.join(inner)}: save the one that "
                "is meant in a file of its own"
            )
        loaded = next(iter(inner.values()))
    weights = _tensors(loaded)
    if not weights:
        raise ValueError(f"no weights in the checkpoint; it holds {', '.join(map(str, loaded)) or 'nothing'}")
    return weights


def _inner(loaded: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The mappings directly in ``loaded`` that hold weights: under the usual keys, or others if nothing else does."""
    holding = {
        key: value
        for key, value in loaded.items()
        if isinstance(key, str) and isinstance(value, Mapping) and _holds_weights(value, set())
    }
    usual = {key: value for key, value in holding.items() if key in WRAPPERS}
    return usual or ({} if _tensors(loaded) else holding)


def _holds_weights(content: Mapping[Any, Any], passed: set[int]) -> bool:
    """Whether there are tensors in it under names; an optimiser's stand under numbers."""
    if id(content) in passed:
        return False
    passed.add(id(content))
    named = [value for key, value in content.items() if isinstance(key, str)]
    return any(isinstance(v, Tensor) or (isinstance(v, Mapping) and _holds_weights(v, passed)) for v in named)


def _tensors(loaded: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}


def peelings(loaded: Mapping[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Yield the weights in a checkpoint's content, first with their own names, then without prefixes that all share.

    DataParallel, ``torch.compile``, averages and trainers add ``module.``, ``_orig_mod.``, ``model.`` and the like
    before every name, possibly several. Only the network shows whether a prefix is theirs or its own.

    Raises:
        ValueError: as `unwrapped`.
    """
    weights = unwrapped(loaded)
    yield weights
    while True:
        named = {name: value for name, value in weights.items() if name not in COUNTERS}
        prefixes = {name.partition(".")[0] for name in named if "." in name}
        if len(prefixes) != 1 or not all("." in name for name in named):
            if len(named) < len(weights):
                yield named
            return
        weights = {name.partition(".")[2]: value for name, value in named.items()}
        yield weights


def load_weights(network: nn.Module, loaded: Mapping[str, Any]) -> None:
    """Load a checkpoint's content into ``network``, all of it or nothing.

    For a name that the network does not have, `SPELLINGS` are tried, and names without the prefixes that all share;
    weights that still do not fit are an error, and never left out.

    Args:
        network: one from `lra.networks.build`, not wrapped, or any other.
        loaded: what ``torch.load(..., weights_only=True)`` or safetensors returned.

    Raises:
        ValueError: if names, shapes or types of numbers differ; the message names the first of each.
    """
    expected = network.state_dict()
    found = [{spelled(name, expected): value for name, value in weights.items()} for weights in peelings(loaded)]
    weights = min(found, key=lambda weights: len(weights.keys() ^ expected.keys()))
    # Old checkpoints lack this counter, which only BatchNorm without momentum uses.
    missing = [n for n in expected if n not in weights and not n.endswith("num_batches_tracked")]
    unknown = [n for n in weights if n not in expected]
    if missing or unknown:
        raise ValueError(
            f"the weights are not of this {type(network).__name__}: {len(missing)} missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}{_several(weights, expected)}"
        )
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{name} is {tuple(value.shape)} in the weights, not {tuple(expected[name].shape)}")
        if not _of_its_kind(value, expected[name]):
            raise ValueError(f"{name} is {value.dtype}, {value.layout} in the weights, not {expected[name].dtype}")
    network.load_state_dict(weights, strict=False)


def _several(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """A note if the weights contain more than one network with the expected names, each under a prefix."""
    parts: dict[str, set[str]] = {}
    for name in weights:
        prefix, _, rest = name.partition(".")
        parts.setdefault(prefix, set()).add(spelled(rest, expected))
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    fitting = [prefix for prefix, names in parts.items() if needed <= names]
    if not fitting:
        return ""
    return f"; those under {' and '.join(fitting)} are: save the one that is meant in a file of its own"


def _of_its_kind(value: Tensor, like: Tensor) -> bool:
    """Whether ``value`` holds plain numbers, and floats where ``like`` does."""
    plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    return plain and not value.is_complex() and value.is_floating_point() == like.is_floating_point()


def spelled(name: str, known: Container[str]) -> str:
    """Return ``name`` as the network spells it, or unchanged if no spelling of it is known."""
    if name in known:
        return name
    for theirs, ours in SPELLINGS:
        other = name.replace(theirs, ours, 1)
        if other in known:
            return other
    return name
