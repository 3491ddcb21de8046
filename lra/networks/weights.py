"""Weights as they are found in the wild: unwrapped, and renamed where that is certain."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts store the weights beside other things."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

SPELLINGS = (("linear.", "fc."), ("fc.", "linear."), (".shortcut.", ".downsample."), ("block", "layer"))
"""Other code's names of the same parts: the classifier, the ResNets' shortcut, the wide ResNets' stages."""


def unwrapped(loaded: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the plain state dict inside what a checkpoint file holds, without wrappers' prefixes.

    Raises:
        ValueError: if there is none.
    """
    for wrapper in WRAPPERS:
        if isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    weights = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f"no weights in the checkpoint; it holds {', '.join(map(str, loaded)) or 'nothing'}")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def load_weights(network: nn.Module, loaded: Mapping[str, Any]) -> None:
    """Load a checkpoint's content into ``network``, all of it or nothing.

    A name the network does not know is tried in `SPELLINGS`; weights that still do not fit are an
    error, never left out.

    Args:
        network: one of `lra.networks.build`, not wrapped, or any other.
        loaded: what ``torch.load(..., weights_only=True)`` or safetensors returned.

    Raises:
        ValueError: if names, shapes or kinds of number differ; the message names the first of each.
    """
    expected = network.state_dict()
    weights = {_spelled(name, expected): value for name, value in unwrapped(loaded).items()}
    # Old checkpoints lack this counter, which only BatchNorm without momentum uses.
    missing = [n for n in expected if n not in weights and not n.endswith("num_batches_tracked")]
    unknown = [n for n in weights if n not in expected]
    if missing or unknown:
        raise ValueError(
            f"the weights are not of this {type(network).__name__}: {len(missing)} missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}"
        )
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{name} is {tuple(value.shape)} in the weights, not {tuple(expected[name].shape)}")
        if not _of_its_kind(value, expected[name]):
            raise ValueError(f"{name} is {value.dtype}, {value.layout} in the weights, not {expected[name].dtype}")
    network.load_state_dict(weights, strict=False)


def _of_its_kind(value: Tensor, like: Tensor) -> bool:
    """Whether ``value`` holds plain numbers, and floats where ``like`` does."""
    plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    return plain and not value.is_complex() and value.is_floating_point() == like.is_floating_point()


def _spelled(name: str, known: Mapping[str, Tensor]) -> str:
    """Return ``name`` as the network spells it, or unchanged if no spelling of it is known."""
    if name in known:
        return name
    for theirs, ours in SPELLINGS:
        other = name.replace(theirs, ours, 1)
        if other in known:
            return other
    return name
