"""Images: their shapes, their scale, and how they are stored."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Image = tuple[int, int, int]
"""Channels, height and width of one image."""


def require_side(image: Image, least: int, network: str) -> None:
    """Raise ``ValueError`` unless ``image`` has a channel and sides of at least ``least`` pixels."""
    channels, height, width = image
    if channels < 1 or min(height, width) < least:
        raise ValueError(f"{network} takes images of at least 1x{least}x{least} (channels, height, width), not {image}")


def per_channel(values: Sequence[float] | Tensor, channels: int | None, name: str) -> Tensor:
    """Turn one number per channel into a tensor (C,1,1), which broadcasts over images (n,C,H,W).

    Args:
        values: one number per channel.
        channels: how many are expected, or ``None`` for any number.
        name: their name in error messages.

    Raises:
        ValueError: if there are none, or not ``channels`` of them, or if some are not finite.
    """
    tensor = torch.as_tensor(values, dtype=torch.get_default_dtype()).detach().clone().reshape(-1, 1, 1)
    if len(tensor) == 0 or (channels is not None and len(tensor) != channels):
        expected = "one a channel" if channels is None else f"{channels}, one a channel"
        raise ValueError(f"{name} needs {expected}; got {len(tensor)}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} must be finite; got {tensor.flatten().tolist()}")
    return tensor


def deviations(values: Sequence[float] | Tensor, channels: int | None) -> Tensor:
    """Return the standard deviations ``values`` as a tensor (C,1,1).

    Raises:
        ValueError: as `per_channel`, and if one of them is not positive.
    """
    tensor = per_channel(values, channels, "std")
    if not (tensor > 0).all():
        raise ValueError(f"std must be positive; got {tensor.flatten().tolist()}")
    return tensor


def standardisation(mean: Sequence[float], std: Sequence[float], device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function that maps images (n,C,H,W) in [0,1], on ``device``, to (x - mean) / std per channel.

    Raises:
        ValueError: as `per_channel` and `deviations`.
    """
    centre, scale = per_channel(mean, None, "mean").to(device), deviations(std, len(mean)).to(device)
    return lambda images: (images - centre) / scale


def to_bytes(images: Tensor, rounding: Literal["nearest", "down"] = "nearest") -> Tensor:
    """Images in [0, 1], clamped, as uint8; ``down`` truncates, as every release does, half a grey level darker."""
    levels = images.detach().clamp(0, 1) * 255
    return (levels.round() if rounding == "nearest" else levels).to(torch.uint8)


def unit(images: Tensor) -> Tensor:
    """Images in [0, 1]: bytes divided by 255, floats as they are."""
    return images if images.is_floating_point() else images.float() / 255
